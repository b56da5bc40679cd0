"""What a gate finds: a figure, what was wanted of it, whether it holds. Used by every gate."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the gates' table."""

    gate: str
    figure: str
    wanted: str
    holds: bool
