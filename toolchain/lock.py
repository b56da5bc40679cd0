"""A lock between processes that ends with its holder; bootstrap and the Pulumi installer use it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from toolchain.failure import ToolchainError

_POLL_S = 0.2
_TIMEOUT_S = 1800.0


@contextmanager
def hold_lock(path: Path, say: Callable[[str], None], *, timeout_s: float = _TIMEOUT_S) -> Iterator[None]:
    """Wait for the lock at `path`, telling once that we wait; the file stays, only the lock on it counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        _wait_for_lock(file, path, say, timeout_s)
        yield


def _wait_for_lock(file: TextIO, path: Path, say: Callable[[str], None], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    has_told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ToolchainError(
                    f"another ./inv has held {path} for {timeout_s:.0f} s; end it and try again"
                ) from None
        if not has_told:
            say("another ./inv is setting up; waiting for it")
            has_told = True
        time.sleep(_POLL_S)
