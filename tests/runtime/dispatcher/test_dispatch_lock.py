from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from runtime.dispatcher.dispatch_lock import (
    LOCK,
    STOP_REQUEST,
    Holder,
    StopRequest,
    hold_dispatch_lock,
    is_held,
    read_stop_reason,
    stop_holder,
)
from schemas.process_birth import read_birth
from tests.clock_set import set_clock


def test_one_holder_at_a_time_who_says_who_it_is(tmp_path: Path) -> None:
    with hold_dispatch_lock(tmp_path) as holder:
        assert holder == msgspec.json.decode((tmp_path / LOCK).read_bytes(), type=Holder)
        started_at, birth = psutil.Process().create_time(), read_birth(os.getpid())
        assert holder == Holder(pid=os.getpid(), started_at=started_at, birth=birth)
        assert is_held(tmp_path)
        with hold_dispatch_lock(tmp_path) as second:
            assert second is None
        assert is_held(tmp_path)

    assert not is_held(tmp_path)
    with hold_dispatch_lock(tmp_path) as third:
        assert third is not None


def test_a_reason_counts_only_for_the_process_it_was_meant_for(tmp_path: Path) -> None:
    mine, other = Holder(pid=1, started_at=5.25), Holder(pid=1, started_at=9.0)
    request = StopRequest(holder=mine, reason="budget_exceeded")
    (tmp_path / STOP_REQUEST).write_bytes(msgspec.json.encode(request))

    assert read_stop_reason(tmp_path, mine) == "budget_exceeded"
    assert read_stop_reason(tmp_path, other) is None
    (tmp_path / STOP_REQUEST).write_bytes(b"{")
    assert read_stop_reason(tmp_path, mine) is None


def test_an_old_request_is_gone_when_the_lock_is_taken(tmp_path: Path) -> None:
    (tmp_path / STOP_REQUEST).write_bytes(b"{}")

    with hold_dispatch_lock(tmp_path):
        assert not (tmp_path / STOP_REQUEST).exists()


def test_nobody_is_signalled_for_a_lock_that_nobody_holds(tmp_path: Path) -> None:
    assert stop_holder(tmp_path, reason=None, timeout_s=1.0) == "absent"
    (tmp_path / LOCK).write_bytes(msgspec.json.encode(Holder(pid=os.getpid(), started_at=1.0)))

    assert stop_holder(tmp_path, reason=None, timeout_s=1.0) == "absent"
    assert not (tmp_path / STOP_REQUEST).exists()


HOLDER = """
import sys, time
from pathlib import Path
from runtime.dispatcher.dispatch_lock import hold_dispatch_lock
with hold_dispatch_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_dispatcher_is_stopped_though_the_clock_was_set_since_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        set_clock(monkeypatch, 5)

        assert stop_holder(tmp_path, reason=None, timeout_s=5.0) == "stopped"
        assert holder.wait(5) == -signal.SIGTERM
