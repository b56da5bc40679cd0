"""Asks the dispatcher of a run to stop early, keeping what is finished. Called by the life cycle and by `release`."""

from __future__ import annotations

import contextlib
import subprocess
import sys

from schemas.status import StopReason
from stacks.run_folder import RunFolder

_PATIENCE_S = 30
_TIMEOUT_S = 60


def stop_dispatcher(folder: RunFolder, reason: StopReason | None) -> None:
    """Stop it and wait, bounded; with a reason, lines that were not run get error lines with it. Never fails."""
    if not folder.manifest.exists():
        return
    stop = [sys.executable, "-m", "runtime.dispatcher", "--stop", str(folder.manifest)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [*stop, *(["--reason", reason] if reason else []), "--timeout", str(_PATIENCE_S)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
        )
