"""The figures that report.js draws, as one JSON text that may stand inside a script element. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from stacks.report.data import RunReport
from stacks.report.durations import Timing
from stacks.report.machines import MachineBar
from stacks.report.series import Series
from stacks.report.view import MOST_STACKED
from stacks.report.words import write_usd

_MADE_SAFE = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


def find_origin(report: RunReport) -> float:
    """The moment that all axes count from: the run's start, or the first thing that is known of it."""
    starts = [segment.start for bar in report.bars for segment in bar.segments]
    known = [report.outcome.started_at, *starts, *(report.series.edges[:1] if report.series else ())]
    return min((each for each in known if each is not None), default=report.made_at)


def render_chart_data(report: RunReport) -> str:
    """Times are seconds since the origin; nothing in the text can end the element that it stands in."""
    origin = find_origin(report)
    data: dict[str, Any] = {
        "span": max(1.0, round(_find_end(report) - origin, 1)),
        "most_stacked": MOST_STACKED,
        "timeline": [_make_row(bar, origin) for bar in report.bars],
    }
    if report.series is not None:
        data |= _make_series(report, report.series, origin)
    if report.timing is not None:
        data |= _make_timing(report.timing)
    text = msgspec.json.encode(data)
    for unsafe, safe in _MADE_SAFE.items():
        text = text.replace(unsafe, safe)
    return text.decode()


def _find_end(report: RunReport) -> float:
    ends = [segment.end for bar in report.bars for segment in bar.segments]
    known = [report.outcome.ended_at, *ends, *(report.series.edges[-1:] if report.series else ())]
    return max((each for each in known if each is not None), default=report.made_at)


def _make_row(bar: MachineBar, origin: float) -> dict[str, Any]:
    start = bar.segments[0].start if bar.segments else origin
    row: dict[str, Any] = {"label": bar.label, "start": round(start - origin, 1), "usd": write_usd(bar.usd)}
    return row | {each.kind: round(each.seconds, 1) for each in bar.segments}


def _make_series(report: RunReport, series: Series, origin: float) -> dict[str, Any]:
    data: dict[str, Any] = {
        "edges": [round(each - origin, 1) for each in series.edges],
        "machines": [
            {
                "label": report.labels.get(each.key, str(each.key)),
                "requests": each.requests_per_s,
                "tokens": each.output_tokens_per_s,
            }
            for each in series.machines
        ],
    }
    known = series.durations
    if not any(known):
        return data
    return data | {
        "durations": {
            "p50": [each.p50_s if each else None for each in known],
            "p90": [each.p90_s if each else None for each in known],
            "p99": [each.p99_s if each else None for each in known],
        },
    }


def _make_timing(timing: Timing) -> dict[str, Any]:
    overall = timing.overall
    return {
        "overall": {"p50": overall.p50_s, "p90": overall.p90_s, "p99": overall.p99_s},
        "bars": [(each.low_s, each.high_s, each.count) for each in timing.bars],
        "is_counted": timing.is_counted,
    }
