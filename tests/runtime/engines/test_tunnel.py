from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runtime.engines.child import Child
from runtime.engines.tunnel import _GUARD, make_tunnel_arguments
from schemas.ssh import SshTarget
from tests.runtime.conftest import wait_until

TARGET = SshTarget(host="1.2.3.4", port=2222, user="root", key_file="/k", known_hosts_file="/h", alias="machine-0")


def test_the_command_forwards_one_socket_and_nothing_else() -> None:
    arguments = make_tunnel_arguments(TARGET, Path("/s/0.sock"), 8000)

    assert arguments[0] == "ssh"
    assert arguments[-1] == "root@1.2.3.4"
    assert arguments[-4:-1] == ["-T", "-L", "/s/0.sock:127.0.0.1:8000"]
    assert "-N" in arguments
    for option in ("ExitOnForwardFailure=yes", "StreamLocalBindUnlink=yes", "StrictHostKeyChecking=yes"):
        assert option in arguments


START = """
import subprocess, sys, time
child = subprocess.Popen(["sh", "-c", sys.argv[1], "tunnel", "sleep", "30"], stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
time.sleep(30)
"""


@pytest.mark.wire
def test_a_guarded_process_dies_with_the_one_that_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", START, _GUARD], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        wait_until(lambda: child.name() == "sleep")
        guards = child.children()

        starter.kill()

    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert len(guards) == 1
    wait_until(lambda: not guards[0].is_running() or guards[0].status() == psutil.STATUS_ZOMBIE)


@pytest.mark.wire
async def test_leaving_a_child_ends_it_even_if_it_does_not_want_to() -> None:
    async with Child(["sh", "-c", "trap '' TERM; echo ready >&2; while :; do sleep 0.05; done"]) as child:
        while child.read_messages() != ["ready"]:
            assert child.is_running
    assert child.process.returncode == -9


@pytest.mark.wire
async def test_a_childs_exit_code_and_last_words_are_kept() -> None:
    async with Child(["sh", "-c", "echo one >&2; echo two >&2; exit 3"]) as child:
        assert await child.wait() == 3
        assert child.read_messages() == ["one", "two"]
