"""Ends every machine of an emulator, from its root folder alone. Called by Machines at the end, and by the watchdog."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from providers.local.listing import list_machines, terminate_machine

_WORKERS = 4


def end_all(root: Path, *, timeout_s: float = 20.0) -> None:
    """End every machine under root, until a search finds none; raises TimeoutError when one will not end."""
    deadline = time.monotonic() + timeout_s
    root = root.resolve()
    while machines := list_machines(root):
        if time.monotonic() > deadline:
            raise TimeoutError(f"these emulated machines do not end: {', '.join(machine.id for machine in machines)}")
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            list(pool.map(lambda machine: terminate_machine(root, machine.id), machines))
