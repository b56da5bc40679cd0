"""Which processes belong to a run, so that a later command can tell whether they live and end them: lifecycle.json."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import msgspec

from schemas.files import replace_file
from stacks.process_mark import ProcessMark, end_session, is_alive
from stacks.run_folder import RunFolder
from stacks.stack_call import PID_FILE


class RunProcesses(msgspec.Struct, frozen=True, kw_only=True):
    """lifecycle.json: the life cycle's process, and the pulumi process that it started last."""

    version: int = 1
    lifecycle: ProcessMark
    pulumi: ProcessMark | None = None


def load_processes(folder: RunFolder) -> RunProcesses | None:
    """None when the run has no life cycle of its own (plain Pulumi), or has not got that far."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(folder.lifecycle.read_bytes(), type=RunProcesses)
    return None


def save_processes(folder: RunFolder, processes: RunProcesses) -> None:
    replace_file(folder.lifecycle, msgspec.json.encode(processes), durable=True)


def is_lifecycle_alive(folder: RunFolder) -> bool:
    processes = load_processes(folder)
    return processes is not None and is_alive(processes.lifecycle)


def end_lifecycle(folder: RunFolder, *, timeout_s: float) -> bool:
    """Ask a live life cycle to cancel and release, and wait; say whether it is gone."""
    processes = load_processes(folder)
    if processes is None or not is_alive(processes.lifecycle):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(processes.lifecycle.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while is_alive(processes.lifecycle):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def end_leftovers(folder: RunFolder) -> int:
    """Kill what a dead life cycle left of its last pulumi call (engine, language host, providers); say how many."""
    processes = load_processes(folder)
    marks = [load_pulumi_mark(folder), processes.pulumi if processes else None]
    return sum(end_session(mark) for mark in marks if mark is not None)


def load_pulumi_mark(folder: RunFolder) -> ProcessMark | None:
    """The pulumi that was started last, from its own note; None before the first."""
    path = folder.root / PID_FILE
    with contextlib.suppress(OSError, ValueError):
        return ProcessMark(pid=int(path.read_text()), started_at=path.stat().st_mtime)
    return None
