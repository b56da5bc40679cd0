"""A local machine's boot.log, which is the standard output and error of its keeper, its server and its start script."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path


def write_log(message: str) -> None:
    """One line with the time, from within the machine; a full disk must not stop what is being logged."""
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{time.strftime('%FT%TZ', time.gmtime())} {message}\n")
        sys.stdout.flush()


def read_boot_log(folder: Path, *, max_bytes: int = 65_536) -> str:
    """The end of the machine's boot log, "" when there is none."""
    try:
        with (folder / "boot.log").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - max_bytes))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
