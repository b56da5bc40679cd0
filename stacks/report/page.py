"""A run's report as one HTML page that needs nothing else: style, charts' library and data are inside. Pure but for reading
the files beside it; called by report."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stacks.report.charts import find_origin, render_chart_data
from stacks.report.data import RunReport
from stacks.report.machines import parse_time
from stacks.report.view import (
    MOST_EVENTS,
    MOST_GROUPS,
    add_together,
    choose_tone,
    count_more_groups,
    describe_errors,
    describe_machines,
    describe_release,
    describe_speed,
    describe_timing,
    list_durations,
    make_tiles,
    pick_events,
    place_range,
)
from stacks.report.words import (
    shorten,
    write_clock,
    write_exact_usd,
    write_figure,
    write_off,
    write_since,
    write_span,
    write_unit,
    write_whole,
    write_words,
)
from stacks.terminal.duration_words import format_duration

_BESIDE = Path(__file__).parent
ECHARTS = _BESIDE / "echarts" / "echarts.common.min.js"
_FILTERS = {
    "whole": write_whole,
    "usd": write_exact_usd,
    "figure": write_figure,
    "span": write_span,
    "clock": write_clock,
    "since": write_since,
    "moment": parse_time,
    "unit": write_unit,
    "off": write_off,
    "words": write_words,
    "shortened": shorten,
    "duration": format_duration,
    "together": add_together,
    "range": place_range,
}


def render_page(report: RunReport) -> str:
    """The whole page. Every text of the user's is escaped by the template engine; scripts run by their hash alone."""
    echarts, script = _read(ECHARTS), _read(_BESIDE / "report.js")
    return _load_template().render(
        report=report,
        outcome=report.outcome,
        origin=find_origin(report),
        policy=_make_policy(echarts, script),
        style=Markup(_read(_BESIDE / "report.css")),
        echarts=Markup(echarts),
        script=Markup(script),
        data=Markup(render_chart_data(report)),
        echarts_version=_find_echarts_version(echarts),
        **_make_views(report),
    )


def _make_views(report: RunReport) -> dict[str, Any]:
    return {
        "tone": choose_tone(report.outcome),
        "release": describe_release(report),
        "tiles": make_tiles(report),
        "machine_words": describe_machines(report),
        "has_lost": any(bar.death for bar in report.bars),
        "has_billed": any(bar.billed_usd is not None for bar in report.bars),
        "speed": describe_speed(report),
        "duration_rows": list_durations(report),
        "timing_words": describe_timing(report),
        "error_words": describe_errors(report),
        "most_groups": MOST_GROUPS,
        "more_groups": count_more_groups(report),
        "events": pick_events(report.events),
        "most_events": MOST_EVENTS,
    }


def _make_policy(*scripts: str) -> str:
    """What the page may do: run these scripts and style itself. Nothing may be fetched, sent or framed."""
    hashes = " ".join(f"'sha256-{_hash(each)}'" for each in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
        " form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def _find_echarts_version(text: str) -> str:
    found = re.search(r'\.version="(\d+\.\d+\.\d+)",\w+\.zrUtil', text)
    return found[1] if found else "unknown"


@functools.cache
def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_BESIDE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment.get_template("report.html")
