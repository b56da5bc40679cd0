"""Files that other processes read: replaced atomically, appended durably, locked by the kernel. Called by every layer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import LeaseholdError


def replace_file(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = False) -> None:
    """Write data so that a reader sees the old file or the new one, never half; durable also survives a power cut."""
    with _write_beside(path, data, mode=mode, durable=durable) as temporary:
        temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write data durably if the file does not exist yet; say whether this call made it. A half-written file is never seen."""
    with _write_beside(path, data, mode=mode, durable=True) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    sync_folder(path.parent)
    return True


def append_line(path: Path, line: bytes, *, durable: bool, mode: int = 0o644) -> None:
    """Append one line (without its newline) in a single write; durable waits for the disk."""
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
    try:
        os.write(descriptor, line + b"\n")
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if durable and is_new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold_lock(path: Path, *, exclusive: bool, timeout_s: float, interval_s: float = 0.02) -> Iterator[None]:
    """Hold an advisory lock on path; raise LeaseholdError if others hold it for longer than timeout_s seconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    wanted = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, wanted | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LeaseholdError(
                        f"another process holds this lock for more than {timeout_s:.0f} s",
                        where=str(path),
                        fix="See which process it is (`fuser` or `lsof` on that file), or try again later.",
                    ) from None
                time.sleep(interval_s)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _write_beside(path: Path, data: bytes, *, mode: int, durable: bool) -> Iterator[Path]:
    """A whole file under another name in the same folder; what is not moved from there is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
