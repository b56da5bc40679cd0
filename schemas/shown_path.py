"""How messages name a file: relative where it is below the folder that the person is in, as they would type it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def show_path(path: str | Path) -> str:
    """The path from here if it leads into no parent folder; else as it is, and so is an s3:// address."""
    text = str(path)
    with contextlib.suppress(OSError, ValueError):  # the folder where we are was removed
        if Path(text).is_absolute() and Path(text).is_relative_to(Path.cwd()):
            return os.path.relpath(text)
    return text
