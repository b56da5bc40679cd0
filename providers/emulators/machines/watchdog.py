"""Waits until its standard input closes, which is the emulator's end however it comes, then ends every machine under ROOT.

`python -m providers.emulators.machines.watchdog ROOT`, started by Machines.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from providers.emulators.machines.ending import end_all

# A machine that was being started when the emulator died may show up a moment later.
_LATE_S = 2.0


def main(root: Path) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1):
        return 0
    end_all(root)
    time.sleep(_LATE_S)
    end_all(root)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
