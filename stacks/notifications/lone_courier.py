"""Goes on trying after a run has ended, in a process of its own: `python -m stacks.notifications.lone_courier FOLDER`.

Started by the run's last process when something is left to tell; where processes do not survive (CI), `notify` does it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import LeaseholdError
from stacks.notifications.late_delivery import can_tell, deliver, list_waiting
from stacks.run_folder import RunFolder

_VARIABLE = "LEASEHOLD_NOTIFY_PATIENCE_S"
_PATIENCE_S = 1800.0
_TRY_PATIENCE_S = 6.0
_FIRST_PAUSE_S = 10.0
_LAST_PAUSE_S = 300.0


def start_courier(folder: RunFolder, environ: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    """Start the process if something is left that it could tell. The run's end never fails because of it."""
    if environ.get("CI") or read_patience(environ) <= 0:
        return None
    with contextlib.suppress(LeaseholdError, OSError):
        if can_tell(folder, environ):
            with folder.lifecycle_log.open("ab") as log:
                return subprocess.Popen(
                    [sys.executable, "-P", "-m", "stacks.notifications.lone_courier", str(folder.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(environ),
                    start_new_session=True,
                )
    return None


def keep_trying(
    folder: RunFolder, environ: Mapping[str, str], *, patience_s: float, first_pause_s: float = _FIRST_PAUSE_S
) -> bool:
    """Try with growing pauses until there is nothing that could be told, the run's folder is gone or patience_s are over; say
    whether all is told."""
    deadline = time.monotonic() + patience_s
    pause_s = first_pause_s
    while folder.root.exists() and can_tell(folder, environ):
        with contextlib.suppress(LeaseholdError):  # a command is at it just now
            deliver(folder, environ, patience_s=_TRY_PATIENCE_S)
            if not can_tell(folder, environ):
                break
        if time.monotonic() + pause_s > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LAST_PAUSE_S)
    return not folder.root.exists() or not list_waiting(folder, environ)


def read_patience(environ: Mapping[str, str]) -> float:
    """Seconds that $LEASEHOLD_NOTIFY_PATIENCE_S allows; what is no number, or has no end, counts as left out."""
    patience_s = math.inf
    with contextlib.suppress(ValueError):
        patience_s = float(environ.get(_VARIABLE, "").strip())
    return patience_s if math.isfinite(patience_s) else _PATIENCE_S


def main() -> int:
    parser = argparse.ArgumentParser(prog="stacks.notifications.lone_courier")
    parser.add_argument("folder", type=Path)
    folder = RunFolder(parser.parse_args().folder)
    try:
        is_told = keep_trying(folder, os.environ, patience_s=read_patience(os.environ))
    except (LeaseholdError, OSError) as error:
        sys.stderr.write(f"telling others late: {error}\n")
        return 1
    return 0 if is_told else 1


if __name__ == "__main__":
    sys.exit(main())
