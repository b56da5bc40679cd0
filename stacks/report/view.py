"""What a run's report says in words and rows, made from its record: the release, the tiles, the tables' rows. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec

from schemas.status import Event
from stacks.report.data import RunReport
from stacks.report.estimate import Expectation
from stacks.report.machines import MachineBar, SegmentKind
from stacks.report.outcome import Outcome
from stacks.report.series import Series
from stacks.report.words import NOTHING, write_figure, write_usd, write_whole
from stacks.terminal.count_words import count_things
from stacks.terminal.duration_words import format_duration

MOST_STACKED = 8
MOST_GROUPS = 40
MOST_EVENTS = 200
_MOST_ROWS = 24
_FIRST_EVENTS = 60
_Row = TypeVar("_Row")
Tone = Literal["", "good", "warn", "bad"]
_TONES: dict[str, Tone] = {
    "completed": "good",
    "cancelling": "warn",
    "cancelled": "warn",
    "expired": "warn",
    "failed": "bad",
    "resource_failed": "bad",
    "submit_failed": "bad",
}


class ReleaseWords(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    words: str
    command: str = ""
    tone: Tone


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: str
    note: str = ""
    tone: Tone = ""


class SpeedRow(msgspec.Struct, frozen=True, kw_only=True):
    until: float
    requests: float
    tokens: float


class MachineSpeed(msgspec.Struct, frozen=True, kw_only=True):
    label: str
    requests: float | None
    tokens: float | None


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    words: str
    is_many: bool
    rows: tuple[SpeedRow, ...]
    machines: tuple[MachineSpeed, ...]


class DurationRow(msgspec.Struct, frozen=True, kw_only=True):
    until: float
    p50_s: float
    p90_s: float
    p99_s: float


class RangeBar(msgspec.Struct, frozen=True, kw_only=True):
    """Places in percent of the width, on a scale where the same factor is the same length."""

    low: float
    width: float
    likely: float
    actual: float | None
    inside: bool


class More(msgspec.Struct, frozen=True, kw_only=True):
    kinds: int
    lines: int


def choose_tone(outcome: Outcome) -> Tone:
    if outcome.state == "completed" and outcome.failed:
        return "warn"
    return _TONES.get(outcome.state, "")


def describe_release(report: RunReport) -> ReleaseWords:
    """The one thing that costs money when it is overlooked."""
    outcome = report.outcome
    left = [bar for bar in report.bars if bar.end != "gone"]
    price = sum(bar.usd_per_hour for bar in left)
    held = f"{count_things(len(left), 'machine')} at {price:.2f} USD/h together"
    command = f"./inv release {report.run}"
    if outcome.released == "verified":
        return ReleaseWords(title="Released: verified", words="No machine of this run is left.", tone="good")
    if outcome.released == "unverified" or outcome.is_over:
        named = ", ".join(f"{bar.offer} {bar.id} at {bar.usd_per_hour:.2f} USD/h" for bar in left[:5])
        words = f"{held} may still cost money: {named}." if left else "Machines may be left that cost money."
        return ReleaseWords(title="RELEASE NOT VERIFIED", words=f"{words} Run now:", command=command, tone="bad")
    if outcome.life == "dead":
        words = f"The run's own process is dead. {held} may cost money. Run now:" if left else "Run now:"
        return ReleaseWords(title="NOT RELEASED", words=words, command=command, tone="bad")
    words = f"{held}." if left else "No machine is known yet."
    if outcome.life == "none":
        words += " Without a life cycle of its own, such as under plain pulumi, whoever began the run ends it:"
        return ReleaseWords(title="Not released", words=words, command=command, tone="warn")
    return ReleaseWords(title="Not released yet: the run is live", words=words, tone="")


def make_tiles(report: RunReport) -> tuple[Tile, ...]:
    return (*_make_count_tiles(report.outcome), *_make_cost_tiles(report))


def _make_count_tiles(outcome: Outcome) -> list[Tile]:
    total = f"of {outcome.total:,}" if outcome.total is not None else ""
    redone = f"{outcome.redone:,} sent again" if outcome.redone else ""
    tiles = [Tile(name="Answered", value=_write_count(outcome.completed), note=total)]
    if outcome.failed is not None or not outcome.is_over:
        tone: Tone = "bad" if outcome.failed else ""
        tiles.append(Tile(name="Failed", value=_write_count(outcome.failed), note=redone, tone=tone))
    if outcome.not_run or outcome.is_over:
        tiles.append(Tile(name="Not run", value=write_whole(outcome.not_run), tone="warn" if outcome.not_run else ""))
    if not outcome.is_over:
        tiles.append(Tile(name="To do", value=write_whole(outcome.open)))
    return tiles


def _make_cost_tiles(report: RunReport) -> list[Tile]:
    outcome, usage = report.outcome, report.outcome.usage
    spent = f"{write_usd(outcome.usd)} USD" if outcome.usd is not None else NOTHING
    expected = next((each.expected for each in report.estimate if each.unit == "usd"), None)
    notes = [f"likely {expected.likely:.2f}"] if expected else []
    notes += ["until now"] if outcome.is_over and any(bar.end != "gone" for bar in report.bars) else []
    notes += [f"billed {write_usd(outcome.billed_usd)}"] if outcome.billed_usd is not None else []
    per_million = outcome.usd_per_million_tokens
    notes += [f"{write_usd(per_million)} per million tokens"] if per_million is not None else []
    prompts = f"{usage.input_tokens:,} of prompts" if usage else ""
    prompts += f", {usage.cached_tokens:,} cached" if usage and usage.cached_tokens else ""
    return [
        Tile(name="Cost" if outcome.is_over else "Cost so far", value=spent, note=", ".join(notes)),
        Tile(
            name="Time",
            value=format_duration(outcome.duration_s) if outcome.duration_s is not None else NOTHING,
            note="start to end" if outcome.is_over else "until now",
        ),
        Tile(name="Output tokens", value=write_whole(usage.output_tokens) if usage else NOTHING, note=prompts),
    ]


def _write_count(count: int | None) -> str:
    return NOTHING if count is None else write_whole(count)


def describe_machines(report: RunReport) -> str:
    bars = report.bars
    lost = sum(bool(bar.death) for bar in bars)
    never = sum(not bar.joined for bar in bars)
    whole = sum(segment.seconds for bar in bars for segment in bar.segments)
    work = add_together(bars, "work")
    words = [f"{len(bars)} machine{'s' if len(bars) != 1 else ''}"]
    words += [f"{lost} of them lost"] if lost else []
    words += [f"{never} never joined"] if never else []
    share = f" {work / whole:.0%} of the time that was paid for was work." if whole else ""
    return f"{', '.join(words)}.{share}"


def add_together(bars: Sequence[MachineBar], kind: SegmentKind) -> float:
    return sum(bar.seconds(kind) for bar in bars)


def describe_speed(report: RunReport) -> Speed | None:
    """None where nothing was noted, or where no machine had joined."""
    series = report.series
    if series is None or not series.machines:
        return None
    rows = _add_up(series)
    lengths = [later - earlier for earlier, later in zip(series.edges, series.edges[1:], strict=False)]
    whole = sum(lengths)
    requests = sum(row.requests * length for row, length in zip(rows, lengths, strict=True)) / whole
    tokens = sum(row.tokens * length for row, length in zip(rows, lengths, strict=True)) / whole
    most = max(row.requests for row in rows)
    words = (
        f"In the mean {write_figure(requests)} requests and {write_figure(tokens)} output tokens per second over"
        f" {format_duration(whole)}, at most {write_figure(most)} requests."
    )
    return Speed(
        words=words,
        is_many=len(series.machines) > MOST_STACKED,
        rows=tuple(_thin(rows)),
        machines=tuple(
            MachineSpeed(
                label=report.labels.get(each.key, str(each.key)),
                requests=_find_mean(each.requests_per_s, lengths),
                tokens=_find_mean(each.output_tokens_per_s, lengths),
            )
            for each in series.machines
        ),
    )


def list_durations(report: RunReport) -> list[DurationRow]:
    series = report.series
    if series is None:
        return []
    rows = [
        DurationRow(until=until, p50_s=each.p50_s, p90_s=each.p90_s, p99_s=each.p99_s)
        for until, each in zip(series.edges[1:], series.durations, strict=True)
        if each is not None
    ]
    return _thin(rows)


def describe_timing(report: RunReport) -> str:
    """How exact the times are, and which answers have none."""
    timing = report.timing
    if timing is None:
        return ""
    if not timing.is_counted:
        return (
            "Put together from the percentiles that the dispatcher noted for each machine every five seconds, in steps of"
            " 9 %: this run has no histogram of its own."
        )
    words = "Each answer was counted by the dispatcher, in steps of 3 %: from the sending that was answered to its end."
    if timing.untimed > 0:
        many = timing.untimed > 1
        words += (
            f" Of {count_things(timing.untimed, 'more answer')} the time is not known:"
            f" {'they' if many else 'it'} came in the last moment before a dispatcher was killed."
        )
    if timing.untimed < 0:
        was = "was" if timing.untimed == -1 else "were"
        words += f" {count_things(-timing.untimed, 'answer')} {was} lost and made again: both times are counted."
    return words


def describe_errors(report: RunReport) -> str:
    errors = report.errors
    if errors is None:
        return ""
    failed = sum(group.count for group in errors.groups if not group.not_run)
    kinds = sum(not group.not_run for group in errors.groups)
    parts = []
    if failed:
        parts.append(f"{failed:,} line{'s' if failed > 1 else ''} failed in {kinds} way{'s' if kinds > 1 else ''}.")
    if errors.not_run:
        parts.append(f"{errors.not_run:,} were not run: the batch was stopped before their turn.")
    return " ".join(parts)


def count_more_groups(report: RunReport) -> More:
    rest = report.errors.groups[MOST_GROUPS:] if report.errors else ()
    return More(kinds=len(rest), lines=sum(group.count for group in rest))


def pick_events(events: Sequence[Event]) -> list[Event | None]:
    """The first and the last ones, None between them where some are left out."""
    if len(events) <= MOST_EVENTS:
        return list(events)
    return [*events[:_FIRST_EVENTS], None, *events[_FIRST_EVENTS - MOST_EVENTS :]]


def place_range(row: Expectation) -> RangeBar | None:
    """None where there is no span to draw, as for a price of 0."""
    span = row.expected
    if span.low <= 0 or span.high <= span.low:
        return None
    actual = row.actual if row.actual and row.actual > 0 else None
    first = min(span.low, actual or span.low) / 1.25
    last = max(span.high, actual or span.high) * 1.25
    length = math.log(last / first)

    def place(value: float) -> float:
        return round(100 * math.log(value / first) / length, 1)

    return RangeBar(
        low=place(span.low),
        width=round(place(span.high) - place(span.low), 1),
        likely=place(span.likely),
        actual=place(actual) if actual else None,
        inside=actual is None or span.low <= actual <= span.high,
    )


def _add_up(series: Series) -> list[SpeedRow]:
    """All machines together, span by span."""
    return [
        SpeedRow(
            until=until,
            requests=sum(each.requests_per_s[place] or 0.0 for each in series.machines),
            tokens=sum(each.output_tokens_per_s[place] or 0.0 for each in series.machines),
        )
        for place, until in enumerate(series.edges[1:])
    ]


def _find_mean(rates: Sequence[float | None], lengths: Sequence[float]) -> float | None:
    known = [(rate, length) for rate, length in zip(rates, lengths, strict=True) if rate]
    whole = sum(length for _, length in known)
    return sum(rate * length for rate, length in known) / whole if whole else None


def _thin(rows: list[_Row]) -> list[_Row]:
    """At most 24 rows, evenly taken, the last one among them."""
    step = math.ceil(len(rows) / _MOST_ROWS) if rows else 1
    return rows[::-1][::step][::-1]
