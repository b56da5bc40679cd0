"""A path as a person wrote it, with `~` for a home folder. Called wherever a file, a flag or a variable names a path."""

from __future__ import annotations

import contextlib
from pathlib import Path


def expand_home(text: str) -> Path:
    """The path; `~nobody` of a user that is not there stays as it is written, and is told as a path that is not there."""
    with contextlib.suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)
