"""Which processes a release may end, and whose lock on a stack it may take away."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.errors import CloudError
from stacks.process_mark import ProcessMark, end_session, is_alive, mark_process
from stacks.run_folder import RunFolder
from stacks.runs.run_processes import end_leftovers, load_pulumi_mark
from stacks.stack import Stack
from stacks.stack_call import PID_FILE
from tests.clock_set import set_clock

pytestmark = pytest.mark.wire


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """The leader of a session of its own, with a child in it."""
    parent = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    wait_for_child(process.pid)
    yield process
    process.kill()
    process.wait()


def wait_for_child(pid: int) -> psutil.Process:
    deadline = time.monotonic() + 5
    while not (children := psutil.Process(pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return children[0]


def wait_until_dead(process: psutil.Process) -> None:
    deadline = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_session_is_ended_with_everybody_in_it(sleeper: subprocess.Popen[bytes]) -> None:
    child = wait_for_child(sleeper.pid)

    assert end_session(mark_process(sleeper.pid)) == 2

    assert sleeper.wait(5) == -signal.SIGKILL
    wait_until_dead(child)


def test_a_session_whose_leader_died_is_ended_too(sleeper: subprocess.Popen[bytes]) -> None:
    mark, child = mark_process(sleeper.pid), wait_for_child(sleeper.pid)
    sleeper.kill()
    sleeper.wait()

    assert end_session(mark) == 1

    wait_until_dead(child)


def test_another_process_with_the_same_id_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    earlier = ProcessMark(pid=sleeper.pid, started_at=psutil.Process(sleeper.pid).create_time() - 60)

    assert end_session(earlier) == 0

    assert sleeper.poll() is None


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_was_set_hides_nobody(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    mark, child = mark_process(sleeper.pid), wait_for_child(sleeper.pid)
    set_clock(monkeypatch, seconds)

    assert is_alive(mark)
    assert end_session(mark) == 2

    assert sleeper.wait(5) == -signal.SIGKILL
    wait_until_dead(child)
    assert not is_alive(mark)


def test_a_pulumi_that_nobody_had_time_to_record_is_ended_by_its_own_note(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / PID_FILE).write_text(f"{sleeper.pid}\n")

    assert load_pulumi_mark(folder) is not None
    assert end_leftovers(folder) == 2

    assert sleeper.wait(5) == -signal.SIGKILL


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    made = Stack.__new__(Stack)
    made.run = "r1"
    made.environment = {"PULUMI_BACKEND_URL": f"file://{tmp_path}"}
    return made


def write_lock(folder: Path, pid: int, *, age_s: float = 0.0) -> None:
    when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)
    lock = folder / ".pulumi" / "locks" / "organization" / "leasehold" / "r1" / "some-id.json"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"pid": pid, "hostname": socket.gethostname(), "timestamp": when.isoformat()}))


def record_unlock(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    unlocked: list[str] = []
    monkeypatch.setattr(stack, "unlock", lambda: unlocked.append(stack.run))
    return unlocked


def test_the_lock_of_a_live_process_is_respected(tmp_path: Path, stack: Stack) -> None:
    write_lock(tmp_path, os.getpid())

    with pytest.raises(CloudError, match=str(os.getpid())):
        stack.clear_stale_lock()


def test_the_lock_of_a_live_pulumi_is_respected_though_the_clock_was_set(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pulumi").symlink_to(shutil.which("sleep") or "")
    with subprocess.Popen([tmp_path / "pulumi", "60"]) as holder:
        write_lock(tmp_path, holder.pid)
        set_clock(monkeypatch, 3600)

        with pytest.raises(CloudError, match=str(holder.pid)):
            stack.clear_stale_lock()
        holder.kill()


def test_the_lock_of_a_zombie_is_cleared(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    unlocked = record_unlock(stack, monkeypatch)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    write_lock(tmp_path, dead.pid)

    assert str(dead.pid) in str(stack.clear_stale_lock())

    assert unlocked == ["r1"]
    dead.wait()


def test_the_lock_of_a_process_whose_id_was_used_again_is_cleared(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlocked = record_unlock(stack, monkeypatch)
    write_lock(tmp_path, os.getpid(), age_s=86_400)

    assert stack.clear_stale_lock() is not None

    assert unlocked == ["r1"]
