"""Until when a run's money lasts: budget.json, written while somebody reckons with it and read by the dispatcher, which
stops the batch then though nobody is left to tell it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from schemas.files import replace_file


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """ends_at: seconds since 1970; by then what the run's machines cost is short of limits.max_usd by a margin."""

    version: int = 1
    ends_at: float


def read_budget(path: Path) -> Budget | None:
    """None when there is none, or none that can be read."""
    try:
        budget = msgspec.json.decode(path.read_bytes(), type=Budget)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return budget if budget.version == 1 else None


def write_budget(path: Path, budget: Budget) -> None:
    replace_file(path, msgspec.json.encode(budget))
