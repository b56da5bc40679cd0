"""Durations in words, for everything that a person reads."""

from __future__ import annotations

import datetime


def format_duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min, 1 h 05."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    span = datetime.timedelta(seconds=round(seconds))
    hours, rest = divmod(int(span.total_seconds()), 3600)
    return f"{hours} h {rest // 60:02d}"
