"""The processes of a local machine, found by a mark in their environment and by descent, and how they are ended."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

from providers.local.folder import FolderRecord
from schemas.process_birth import is_same_process

# Every process of a machine has these in its environment. The folder is the mark, since an id need not be unique on a
# computer with several roots; the id and the name are for people and for what has lost its folder.
MARK_ID = "LEASEHOLD_MACHINE_ID"
MARK_NAME = "LEASEHOLD_MACHINE_NAME"
MARK_FOLDER = "LEASEHOLD_MACHINE_FOLDER"
_POLL_S = 0.02
# psutil derives a start time from the boot time, which a clock adjustment may move a little between two readings.
_START_TIME_TOLERANCE_S = 1.0


def get_start_time(pid: int) -> float:
    """When a process started, in seconds since 1970; 0 when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def find_keeper(record: FolderRecord) -> psutil.Process | None:
    """The machine's own process; None when it is dead: a zombie is dead, and a reused pid is somebody else."""
    try:
        process = psutil.Process(record.pid) if record.pid else None
        if process is None or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    is_same = is_same_process(
        record.pid,
        birth=record.process_birth,
        started_at=record.process_started_at,
        tolerance_s=_START_TIME_TOLERANCE_S,
    )
    return process if is_same else None


def find_marks(root: Path) -> dict[Path, str]:
    """The folder and the name of every machine under root with a living process, whether or not the folder is there."""
    marks = {}
    for process in psutil.process_iter():
        environment = read_environment(process)
        folder = Path(environment.get(MARK_FOLDER, ""))
        if folder.parent == root and folder.name:
            marks[folder] = environment.get(MARK_NAME, "")
    return marks


def find_processes(folder: Path) -> list[psutil.Process]:
    """Every living process of a machine: those that bear its mark, and all that descend from them; never the caller."""
    children: defaultdict[int, list[psutil.Process]] = defaultdict(list)
    found: dict[int, psutil.Process] = {}
    for process, parent in list_processes():
        children[parent].append(process)
        if read_environment(process).get(MARK_FOLDER) == str(folder):
            found[process.pid] = process
    waiting = list(found)
    while waiting:
        for child in children[waiting.pop()]:
            if child.pid not in found:
                found[child.pid] = child
                waiting.append(child.pid)
    found.pop(os.getpid(), None)
    return list(found.values())


def end_processes(
    folder: Path, *, spare: Collection[int] = (), grace_s: float = 0.5, timeout_s: float = 3.0
) -> list[psutil.Process]:
    """End a machine's processes: SIGTERM, a short grace, SIGKILL until two searches find none. Returns survivors."""
    deadline = time.monotonic() + timeout_s
    processes = find_spared(folder, spare)
    for process in processes:
        send(process, kill=False)
    wait_gone(processes, min(deadline, time.monotonic() + grace_s))
    empty_searches = 0
    while empty_searches < 2 and time.monotonic() < deadline:
        # A process may fork between the search and its end, so one empty search is not enough.
        processes = find_spared(folder, spare)
        empty_searches = 0 if processes else empty_searches + 1
        for process in processes:
            send(process, kill=True)
        wait_gone(processes, deadline)
    return find_spared(folder, spare)


def find_spared(folder: Path, spare: Collection[int]) -> list[psutil.Process]:
    return [process for process in find_processes(folder) if process.pid not in spare]


def wait_gone(processes: list[psutil.Process], deadline: float) -> bool:
    """Wait until none of the processes lives or the monotonic deadline has come; say whether they are gone."""
    while any(is_alive(process) for process in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def send(process: psutil.Process, *, kill: bool) -> None:
    """Send SIGTERM or SIGKILL; psutil refuses when the pid has been reused."""
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def list_processes() -> Iterator[tuple[psutil.Process, int]]:
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process, process.ppid()
        except psutil.NoSuchProcess:
            continue


def read_environment(process: psutil.Process) -> dict[str, str]:
    """A process's environment as it was started; empty when it is gone or not ours to read."""
    try:
        return process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return {}
