"""What a run's stats.jsonl tells over time, in few enough points for a page: rates of each machine, and durations.

Read line by line by stacks.report.data; a file of a hundred machines over ten hours has 150 MB.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

STATS_FILE = "stats.jsonl"
_MOST_POINTS = 240
# The last line comes when the batch ends: a rate over a moment would be chance.
_SHORTEST_S = 1.0
_STEPS_PER_DOUBLING = 8
_SMALLEST_S = 0.0001
_BAR_STEPS = 2

Durations = dict[tuple[float, float, float], int]
"""How many answers came with these percentiles (50, 90, 99) of their few seconds."""


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    p50_s: float
    p90_s: float
    p99_s: float


class DurationBar(msgspec.Struct, frozen=True, kw_only=True):
    """About `count` answers took from low_s to high_s seconds."""

    low_s: float
    high_s: float
    count: float


class MachineSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of one machine, one for each span of the series; None where it told nothing. key: its place in the ledger."""

    key: int
    requests_per_s: tuple[float | None, ...]
    output_tokens_per_s: tuple[float | None, ...]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """edges: seconds since 1970, one more than there are spans. answers: those that the durations are of."""

    edges: tuple[float, ...] = ()
    machines: tuple[MachineSeries, ...] = ()
    durations: tuple[Percentiles | None, ...] = ()
    answers: int = 0
    overall: Percentiles | None = None
    bars: tuple[DurationBar, ...] = ()
    unreadable: int = 0


class _Replica(msgspec.Struct, gc=False):
    index: int
    completed: int = 0
    failed: int = 0
    output_tokens: int = 0
    p50_s: float = 0.0
    p90_s: float = 0.0
    p99_s: float = 0.0


_NOTHING = _Replica(index=-1)


class _Line(msgspec.Struct, gc=False):
    time: float
    replicas: list[_Replica] = []


class _Span:
    """A stretch of time with what each machine did in it; two neighbours can become one."""

    __slots__ = ("durations", "end", "requests", "start", "tokens")

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end
        self.requests: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.durations: Durations = {}

    def add(self, machine: int, requests: int, tokens: int) -> None:
        self.requests[machine] = self.requests.get(machine, 0) + requests
        self.tokens[machine] = self.tokens.get(machine, 0) + tokens

    def absorb(self, later: _Span) -> None:
        self.end = later.end
        for mine, theirs in ((self.requests, later.requests), (self.tokens, later.tokens)):
            for machine, count in theirs.items():
                mine[machine] = mine.get(machine, 0) + count
        for key, count in later.durations.items():
            self.durations[key] = self.durations.get(key, 0) + count

    def rate(self, counts: dict[int, int], machine: int) -> float | None:
        count = counts.get(machine)
        return None if count is None else _round(count / (self.end - self.start))


class _Gatherer:
    """Takes line after line; when there are too many spans, neighbours become one, and from then on each takes more lines."""

    def __init__(self, find_machine: Callable[[int, float], int], started_at: float | None) -> None:
        self.spans: list[_Span] = []
        self.unreadable = 0
        self._lines_a_span, self._lines = 1, 0
        self._find_machine = find_machine
        self._before: dict[int, _Replica] = {}
        self._last = started_at

    def add(self, line: _Line) -> None:
        # The first line counts from the first request on; without that moment its length is not known.
        start = self._last if self._last is not None and self._last < line.time else line.time - 5.0
        if self.spans and line.time <= self.spans[-1].end:
            return
        self._last = line.time
        span = _Span(start, line.time)
        for replica in line.replicas:
            self._add_replica(span, replica, line.time)
        is_moment = span.end - span.start < _SHORTEST_S
        if self.spans and (is_moment or self._lines < self._lines_a_span):
            self.spans[-1].absorb(span)
        else:
            self._lines = 0
            self.spans.append(span)
        self._lines += 1
        if len(self.spans) > 2 * _MOST_POINTS:
            self.halve()

    def halve(self) -> None:
        for first, second in zip(self.spans[::2], self.spans[1::2], strict=False):
            first.absorb(second)
        self.spans = self.spans[::2]
        self._lines_a_span *= 2

    def _add_replica(self, span: _Span, replica: _Replica, time: float) -> None:
        before = self._before.get(replica.index, _NOTHING)
        if replica.completed < before.completed or replica.failed < before.failed:
            before = _NOTHING  # another machine, or another dispatcher: both count from 0
        self._before[replica.index] = replica
        answers = replica.completed - before.completed
        requests = answers + replica.failed - before.failed
        tokens = max(0, replica.output_tokens - before.output_tokens)
        span.add(self._find_machine(replica.index, time), requests, tokens)
        if answers and replica.p50_s > 0:
            key = (replica.p50_s, replica.p90_s, replica.p99_s)
            span.durations[key] = span.durations.get(key, 0) + answers


def read_series(
    path: Path, *, find_machine: Callable[[int, float], int], started_at: float | None = None
) -> Series | None:
    """The whole file in at most 240 spans; None where it is missing. A torn line is counted and left out."""
    gatherer = _Gatherer(find_machine, started_at)
    decode = msgspec.json.Decoder(_Line).decode
    try:
        with path.open("rb") as file:
            for data in file:
                try:
                    gatherer.add(decode(data))
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    gatherer.unreadable += 1
    except FileNotFoundError:
        return None
    while len(gatherer.spans) > _MOST_POINTS:
        gatherer.halve()
    return _make_series(gatherer)


def _make_series(gatherer: _Gatherer) -> Series:
    spans = gatherer.spans
    machines = sorted(
        {machine for span in spans for machine in span.requests}, key=lambda key: key if key >= 0 else -1 - key
    )
    steps = [_spread(span.durations) for span in spans]
    whole = _add_up(steps)
    return Series(
        edges=tuple(round(each, 3) for each in ([spans[0].start, *(span.end for span in spans)] if spans else [])),
        machines=tuple(
            MachineSeries(
                key=machine,
                requests_per_s=tuple(span.rate(span.requests, machine) for span in spans),
                output_tokens_per_s=tuple(span.rate(span.tokens, machine) for span in spans),
            )
            for machine in machines
        ),
        durations=tuple(_find_percentiles(each) for each in steps),
        answers=sum(sum(span.durations.values()) for span in spans),
        overall=_find_percentiles(whole),
        bars=_make_bars(whole),
        unreadable=gatherer.unreadable,
    )


def _spread(durations: Durations) -> dict[int, float]:
    """A histogram in 9 % wide steps that has these percentiles; between two of them answers are taken to lie evenly."""
    steps: dict[int, float] = {}
    for (p50, p90, p99), count in durations.items():
        half, nine, last = _find_step(p50), _find_step(p90), _find_step(p99)
        # Below the median nothing is known; as far below it as the 90th percentile is above is the usual shape.
        for low, high, share in ((2 * half - nine, half, 0.5), (half, nine, 0.4), (nine, last, 0.1)):
            low = min(max(low, 0), high)
            width = max(1, high - low)
            part = count * share / width
            for step in range(high - width + 1, high + 1):
                steps[step] = steps.get(step, 0.0) + part
    return steps


def _add_up(histograms: Iterable[dict[int, float]]) -> dict[int, float]:
    whole: dict[int, float] = {}
    for steps in histograms:
        for step, count in steps.items():
            whole[step] = whole.get(step, 0.0) + count
    return whole


def _find_percentiles(steps: dict[int, float]) -> Percentiles | None:
    total = sum(steps.values())
    if not total:
        return None
    found: list[float] = []
    seen = 0.0
    for step in sorted(steps):
        seen += steps[step]
        while len(found) < 3 and seen >= (0.5, 0.9, 0.99)[len(found)] * total * (1 - 1e-9):
            found.append(_round(_find_duration(step)))
    return Percentiles(p50_s=found[0], p90_s=found[1], p99_s=found[2])


def _make_bars(steps: dict[int, float]) -> tuple[DurationBar, ...]:
    """Two steps a bar: 19 % wide, without gaps from the fastest to the slowest."""
    counts: dict[int, float] = {}
    for step, count in steps.items():
        place = step // _BAR_STEPS
        counts[place] = counts.get(place, 0.0) + count
    if not counts:
        return ()
    return tuple(
        DurationBar(
            low_s=_round(_find_duration(place * _BAR_STEPS - 1)),
            high_s=_round(_find_duration(place * _BAR_STEPS + _BAR_STEPS - 1)),
            count=round(counts.get(place, 0.0), 1),
        )
        for place in range(min(counts), max(counts) + 1)
    )


def _find_step(duration_s: float) -> int:
    """The step whose upper end a percentile is: the dispatcher's own steps, rounded up."""
    return max(0, round(math.log2(max(duration_s, _SMALLEST_S) / _SMALLEST_S) * _STEPS_PER_DOUBLING) - 1)


def _find_duration(step: int) -> float:
    """The upper end of a step."""
    return float(_SMALLEST_S * 2 ** ((step + 1) / _STEPS_PER_DOUBLING))


def _round(value: float) -> float:
    """Three digits that count: more would only make the page longer."""
    with contextlib.suppress(ValueError, OverflowError):
        return float(f"{value:.3g}")
    return 0.0
