"""Tells a process from a later one with the same id, also after the clock was set. Called wherever a process is recorded."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_TOLERANCE_S = 2.0


def read_birth(pid: int) -> str:
    """What no other process of this computer has ever had: the boot and the clock tick in which it began; "" when it is gone.

    Its start as a time would not do: Linux reckons that from the clock of now, so it moves whenever the clock is set.
    """
    if sys.platform != "linux":
        return repr(_read_start(pid)) if psutil.pid_exists(pid) else ""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{ticks}"
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # hidden: another user's
        return ""


def is_same_process(pid: int, *, birth: str, started_at: float, tolerance_s: float = _TOLERANCE_S) -> bool:
    """Whether that process still lives or is a zombie; by its start (seconds since 1970) alone where its birth is not known."""
    if birth:
        return read_birth(pid) == birth
    start = _read_start(pid)
    return start > 0 and abs(start - started_at) < tolerance_s


def _read_start(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
