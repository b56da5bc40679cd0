"""dispatch.lock: one dispatcher an output folder, who it is, and how it is asked to stop. Used by the dispatcher and its --stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from schemas.errors import LeaseholdError
from schemas.files import hold_lock, replace_file
from schemas.process_birth import is_same_process, read_birth
from schemas.status import StopReason

LOCK, STOP_REQUEST = "dispatch.lock", "dispatch.stop"
TAKE_TIMEOUT_S = 0.3  # longer than somebody who only looks holds it
KILL_TIMEOUT_S = 3.0
_INTERVAL_S = 0.05
_START_TOLERANCE_S = 0.5


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The dispatcher that holds the lock: its process, when that began (seconds since 1970), and its birth (schemas.process_birth),
    since ids are used again."""

    version: int = 1
    pid: int
    started_at: float
    birth: str = ""


class StopRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the signal, for the process that is to read it; reason None: a stop from which one can go on."""

    version: int = 1
    holder: Holder
    reason: StopReason | None


@contextlib.contextmanager
def hold_dispatch_lock(folder: Path) -> Iterator[Holder | None]:
    """Hold the lock for as long as the context lasts; None when a live dispatcher has it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(folder / LOCK, exclusive=True, timeout_s=TAKE_TIMEOUT_S))
        except LeaseholdError:
            yield None
            return
        pid = os.getpid()
        holder = Holder(pid=pid, started_at=psutil.Process().create_time(), birth=read_birth(pid))
        # In place: another file under this name would be another lock.
        (folder / LOCK).write_bytes(msgspec.json.encode(holder))
        (folder / STOP_REQUEST).unlink(missing_ok=True)
        yield holder


def read_stop_reason(folder: Path, holder: Holder) -> StopReason | None:
    """Why this dispatcher was asked to stop, None if nobody gave a reason."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        request = msgspec.json.decode((folder / STOP_REQUEST).read_bytes(), type=StopRequest)
        if request.holder == holder:
            return request.reason
    return None


def stop_holder(folder: Path, *, reason: StopReason | None, timeout_s: float) -> Literal["absent", "stopped", "killed"]:
    """Ask the dispatcher of this folder to stop and wait until it is gone; after timeout_s it is killed, which loses nothing."""
    deadline = time.monotonic() + timeout_s
    holder = _wait_for_holder(folder, deadline)
    if holder is None:
        return "absent"
    replace_file(folder / STOP_REQUEST, msgspec.json.encode(StopRequest(holder=holder, reason=reason)))
    _signal(holder, signal.SIGTERM)
    if _wait_until_free(folder, deadline):
        return "stopped"
    _signal(holder, signal.SIGKILL)
    _wait_until_free(folder, time.monotonic() + KILL_TIMEOUT_S)
    return "killed"


def is_held(folder: Path) -> bool:
    """Whether a live dispatcher has the lock."""
    if not (folder / LOCK).exists():
        return False
    try:
        with hold_lock(folder / LOCK, exclusive=False, timeout_s=0.0):
            return False
    except LeaseholdError:
        return True


def _wait_for_holder(folder: Path, deadline: float) -> Holder | None:
    """The live holder; one that took the lock a moment ago may still have to write who it is."""
    while is_held(folder):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            holder = msgspec.json.decode((folder / LOCK).read_bytes(), type=Holder)
            if _is_alive(holder):
                return holder
        if time.monotonic() >= deadline:
            return None
        time.sleep(_INTERVAL_S)
    return None


def _wait_until_free(folder: Path, deadline: float) -> bool:
    while is_held(folder):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_INTERVAL_S)
    return True


def _is_alive(holder: Holder) -> bool:
    return is_same_process(holder.pid, birth=holder.birth, started_at=holder.started_at, tolerance_s=_START_TOLERANCE_S)


def _signal(holder: Holder, number: signal.Signals) -> None:
    if _is_alive(holder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.pid, number)
