"""Asks the dispatcher of a run to stop early, keeping what is finished. Called by the life cycle and by `release`."""

from __future__ import annotations

import contextlib
import subprocess
import sys

from schemas.status import StopReason
from stacks.run_folder import RunFolder
from stacks.runs.run_status import read_progress

_PATIENCE_S = 30
_TIMEOUT_S = 60
# An error line for each request that was not run: several times what a million of them take on a slow computer.
_FINISH_S = 120.0
_FINISH_S_PER_LINE = 1 / 5000


def stop_dispatcher(folder: RunFolder, reason: StopReason | None) -> None:
    """Stop it and wait, bounded, since machines wait too; with a reason, lines that were not run get error lines with it,
    as far as there is time. Never fails."""
    _call_stop(folder, reason, timeout_s=_TIMEOUT_S)


def finish_results(folder: RunFolder, reason: StopReason) -> None:
    """Once no machine waits any more: the error lines for which a stop had no time, and the files in their final place."""
    if not folder.output.exists():
        progress = read_progress(folder)
        lines = progress.request_counts.total if progress else 0
        _call_stop(folder, reason, timeout_s=_FINISH_S + lines * _FINISH_S_PER_LINE)


def _call_stop(folder: RunFolder, reason: StopReason | None, *, timeout_s: float) -> None:
    if not folder.manifest.exists():
        return
    stop = [sys.executable, "-P", "-m", "runtime.dispatcher", "--stop", str(folder.manifest)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [*stop, *(["--reason", reason] if reason else []), "--timeout", str(_PATIENCE_S)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
        )
