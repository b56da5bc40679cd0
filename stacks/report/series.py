"""What a run's stats.jsonl tells over time, in few enough points for a page: rates of each machine, and times of requests.

Read line by line by stacks.report.data; a file of a hundred machines over ten hours has 150 MB.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from stacks.report.durations import Noted, Percentiles, Steps, add_up, find_percentiles, spread

STATS_FILE = "stats.jsonl"
_MOST_POINTS = 240
# The last line comes when the batch ends: a rate over a moment would be chance.
_SHORTEST_S = 1.0


class MachineSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of one machine, one for each span of the series; None where it told nothing. key: its place in the ledger."""

    key: int
    requests_per_s: tuple[float | None, ...]
    output_tokens_per_s: tuple[float | None, ...]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """edges: seconds since 1970, one more than there are spans. durations: percentiles of each span, None without answers."""

    edges: tuple[float, ...] = ()
    machines: tuple[MachineSeries, ...] = ()
    durations: tuple[Percentiles | None, ...] = ()
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
    durations: list[tuple[int, int]] = []


class _Span:
    """A stretch of time with what each machine did in it; two neighbours can become one."""

    __slots__ = ("counted", "end", "noted", "requests", "start", "tokens")

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end
        self.requests: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.counted: Steps = {}
        self.noted: Noted = {}

    def add(self, machine: int, requests: int, tokens: int) -> None:
        self.requests[machine] = self.requests.get(machine, 0) + requests
        self.tokens[machine] = self.tokens.get(machine, 0) + tokens

    def absorb(self, later: _Span) -> None:
        self.end = later.end
        for mine, theirs in ((self.requests, later.requests), (self.tokens, later.tokens)):
            for machine, count in theirs.items():
                mine[machine] = mine.get(machine, 0) + count
        for step, answers in later.counted.items():
            self.counted[step] = self.counted.get(step, 0.0) + answers
        for key, count in later.noted.items():
            self.noted[key] = self.noted.get(key, 0) + count

    @property
    def steps(self) -> Steps:
        return add_up([self.counted, spread(self.noted)])

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
        span.counted = {step: float(answers) for step, answers in line.durations}
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
        # Dispatchers before there was a histogram noted percentiles alone.
        if answers and replica.p50_s > 0 and not span.counted:
            key = (replica.p50_s, replica.p90_s, replica.p99_s)
            span.noted[key] = span.noted.get(key, 0) + answers


def read_series(
    path: Path, *, find_machine: Callable[[int, float], int], started_at: float | None = None
) -> tuple[Series, Steps] | None:
    """The whole file in at most 240 spans, and the times of all its answers; None where it is missing.

    A torn line is counted and left out.
    """
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
    steps = [span.steps for span in gatherer.spans]
    return _make_series(gatherer, steps), add_up(steps)


def _make_series(gatherer: _Gatherer, steps: Sequence[Steps]) -> Series:
    spans = gatherer.spans
    machines = sorted(
        {machine for span in spans for machine in span.requests}, key=lambda key: key if key >= 0 else -1 - key
    )
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
        durations=tuple(find_percentiles(each) for each in steps),
        unreadable=gatherer.unreadable,
    )


def _round(value: float) -> float:
    """Three digits that count: more would only make the page longer."""
    with contextlib.suppress(ValueError, OverflowError):
        return float(f"{value:.3g}")
    return 0.0
