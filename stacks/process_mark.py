"""A process by its id and its start, and the session that it leads: found and ended although its parent is dead. Called by all
that watch or end a run's processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import msgspec
import psutil

from schemas.process_birth import is_same_process, read_birth


class ProcessMark(msgspec.Struct, frozen=True, kw_only=True):
    """A process that cannot be mistaken for a later one with the same id; started_at in seconds since 1970, birth as of
    schemas.process_birth."""

    pid: int
    started_at: float
    birth: str = ""


def mark_process(pid: int) -> ProcessMark:
    return ProcessMark(pid=pid, started_at=psutil.Process(pid).create_time(), birth=read_birth(pid))


def is_alive(mark: ProcessMark) -> bool:
    """Whether that very process still runs."""
    try:
        return _is_same(mark) and psutil.Process(mark.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_session(mark: ProcessMark) -> int:
    """Kill every process of the session that mark leads, by id, and say how many; a session of a later process is others'."""
    if _is_reused(mark):
        return 0
    ended = 0
    for process in list(_session_members(mark)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            ended += 1
    return ended


def _is_reused(mark: ProcessMark) -> bool:
    """Whether the id went to another process, which it cannot while anybody of the session lives."""
    return psutil.pid_exists(mark.pid) and not _is_same(mark)


def _is_same(mark: ProcessMark) -> bool:
    return is_same_process(mark.pid, birth=mark.birth, started_at=mark.started_at)


def _session_members(mark: ProcessMark) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == mark.pid and process.pid != os.getpid():
                yield process
