"""The user's own earlier runs, as their receipts measured them. Read by the planning, never written here."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from stacks.planning.experience import Measured
from stacks.run_folder import list_runs

# A home of many runs must not make a plan slow; what is older says little about today's engine and input.
_LOOK_AT = 300


class _Receipt(msgspec.Struct):
    measured: Measured | None = None


def load_history(home: Path) -> tuple[Measured, ...]:
    """What the receipts of this home measured, newest first; one that cannot be read teaches nothing."""
    found = []
    for folder in list_runs(home)[:_LOOK_AT]:
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
            measured = msgspec.json.decode(folder.receipt.read_bytes(), type=_Receipt).measured
            if measured is not None:
                found.append(measured)
    return tuple(found)
