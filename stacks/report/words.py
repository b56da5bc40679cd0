"""How figures, times and spans are written in a run's report. Pure; used as filters by the page's template."""

from __future__ import annotations

import datetime

from stacks.report.estimate import Unit
from stacks.terminal.duration_words import format_duration

NOTHING = "–"


def write_whole(value: int) -> str:
    return f"{value:,}"


def write_usd(value: float) -> str:
    """To the cent; small sums to a hundredth of one."""
    return f"{value:,.2f}" if value >= 0.1 or value == round(value, 2) else f"{value:.4f}"


def write_exact_usd(value: float) -> str:
    """As the receipt has it, so that a column of them adds up."""
    return f"{value:,.4f}"


def write_figure(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_span(seconds: float) -> str:
    """The time of a request."""
    if seconds >= 90:
        return f"{seconds / 60:.3g} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def write_clock(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def write_since(seconds: float | None, origin: float) -> str:
    """Hours, minutes and seconds since the run's start."""
    if seconds is None:
        return NOTHING
    whole = round(abs(seconds - origin))
    hours, rest = divmod(whole, 3600)
    sign = "-" if seconds < origin and whole else ""
    clock = f"{hours}:{rest // 60:02d}" if hours else f"{rest // 60}"
    return f"{sign}{clock}:{rest % 60:02d}"


def write_unit(value: float, unit: Unit) -> str:
    if unit == "usd":
        return f"{write_usd(value)} USD"
    if unit == "hours":
        return format_duration(value * 3600)
    if unit == "minutes":
        return format_duration(value * 60)
    return f"{value:,.0f}"


def write_off(error: float) -> str:
    """How far a figure was from the likely one."""
    return f"{error:+.0%}" if error < 9 else f"{error + 1:,.0f} times"


def write_words(state: str) -> str:
    return state.replace("_", " ")


def shorten(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[:letters].rstrip()} ..."
