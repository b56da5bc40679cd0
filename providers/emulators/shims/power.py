"""`shutdown`, `reboot`, `systemctl` and their like on an emulated machine: end the machine's processes, never this computer's."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from providers.emulators.machines.machine_file import find_own_folder
from providers.local.processes import end_processes

_ENDING = frozenset({"shutdown", "poweroff", "halt", "reboot"})


def main(command: str, arguments: Sequence[str]) -> int:
    if command not in _ENDING and not _ENDING & set(arguments):
        return 0
    folder = find_own_folder()
    if os.fork() == 0:
        os.setsid()
        # The caller's own shell is one of those that end, so a child does it.
        end_processes(folder)
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
