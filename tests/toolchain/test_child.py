"""Commands of the set-up: what they print is kept, and none outlives us."""

from __future__ import annotations

import sys

import pytest

from tests.toolchain.processes import is_alive, read_pid, wait_until
from toolchain.child import ChildFailed, run_child
from toolchain.failure import ToolchainError

pytestmark = pytest.mark.wire


def test_what_a_command_prints_on_both_streams_is_returned():
    assert run_child(["/bin/sh", "-c", "echo out; echo err >&2"], timeout_s=10) == "out\nerr\n"


def test_a_failure_shows_the_last_lines_and_keeps_all():
    with pytest.raises(ChildFailed) as caught:
        run_child(["/bin/sh", "-c", "seq 1 100; exit 4"], timeout_s=10)

    assert str(caught.value).startswith("sh failed with exit code 4; it said:\n    86\n")
    assert caught.value.output.startswith("1\n2\n")


def test_a_program_that_is_missing_is_named():
    with pytest.raises(ToolchainError, match="no-such-program cannot be started: No such file or directory"):
        run_child(["/nowhere/no-such-program"], timeout_s=10)


def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path):
    with pytest.raises(ToolchainError, match="sh did not end within 1 s"):
        run_child(["/bin/sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], timeout_s=1)

    pid = read_pid(tmp_path / "pid")
    wait_until(lambda: not is_alive(pid), "the child's end")


def test_the_python_of_the_caller_can_be_run():
    assert run_child([sys.executable, "-c", "print(1)"], timeout_s=30) == "1\n"
