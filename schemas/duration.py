"""Durations as jobs write them: `24h`, `90m`. Called by the job's check and loader."""

from __future__ import annotations

import re

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")


def parse_duration(text: str) -> int | None:
    """Seconds, or None for what is not a duration."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNITS_S[match[2]] if match else None
