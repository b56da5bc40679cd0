from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil

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


def test_one_holder_at_a_time_who_says_who_it_is(tmp_path: Path) -> None:
    with hold_dispatch_lock(tmp_path) as holder:
        assert holder == msgspec.json.decode((tmp_path / LOCK).read_bytes(), type=Holder)
        assert holder == Holder(pid=os.getpid(), started_at=psutil.Process().create_time())
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
