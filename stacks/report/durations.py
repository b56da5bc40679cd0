"""How long the answers of a run took: counted by its dispatcher, or put together from percentiles that it noted. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import msgspec

from schemas.durations import STEPS_PER_DOUBLING, Durations, find_end_s, find_step

# The first steps of a doubling's four bars: within one step equally wide on a scale of powers, as they are drawn.
_BARS = (0, 6, 13, 22)

Steps = dict[int, float]
"""Answers by the steps of schemas.durations."""
Noted = dict[tuple[float, float, float], int]
"""How many answers came with these percentiles (50, 90, 99) of their few seconds."""


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    p50_s: float
    p90_s: float
    p99_s: float


class DurationBar(msgspec.Struct, frozen=True, kw_only=True):
    """`count` answers took from low_s to high_s seconds."""

    low_s: float
    high_s: float
    count: float


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """is_counted: each answer was, in steps of 3 %; else put together from percentiles of every few seconds.

    untimed: answers in the results whose time is not known; below 0, so many were lost, made again, and timed both times.
    longest_s: None where it is not known.
    """

    is_counted: bool
    answers: int
    untimed: int = 0
    overall: Percentiles
    longest_s: float | None = None
    bars: tuple[DurationBar, ...]


def make_timing(counted: Durations | None, noted: Steps, *, answered: int | None) -> Timing | None:
    """counted: as the dispatcher told at last, None from one that told none. answered: by this run alone, None: not known."""
    steps = {step: float(answers) for step, answers in counted.steps} if counted else noted
    overall = find_percentiles(steps)
    if overall is None:
        return None
    answers = round(sum(steps.values()))
    return Timing(
        is_counted=counted is not None,
        answers=answers,
        untimed=answered - answers if counted and answered is not None else 0,
        overall=_cap(overall, counted.longest_s) if counted else overall,
        longest_s=counted.longest_s if counted else None,
        bars=_make_bars(steps),
    )


def spread(noted: Noted) -> Steps:
    """A histogram that has these percentiles; between two of them answers are taken to lie evenly."""
    steps: Steps = {}
    for (p50, p90, p99), count in noted.items():
        half, nine, last = _find_noted(p50), _find_noted(p90), _find_noted(p99)
        # Below the median nothing is known; as far below it as the 90th percentile is above is the usual shape.
        for low, high, share in ((2 * half - nine, half, 0.5), (half, nine, 0.4), (nine, last, 0.1)):
            low = min(max(low, 0), high)
            width = max(1, high - low)
            part = count * share / width
            for step in range(high - width + 1, high + 1):
                steps[step] = steps.get(step, 0.0) + part
    return steps


def add_up(histograms: Iterable[Steps]) -> Steps:
    whole: Steps = {}
    for steps in histograms:
        for step, count in steps.items():
            whole[step] = whole.get(step, 0.0) + count
    return whole


def find_percentiles(steps: Steps) -> Percentiles | None:
    """Each the end of its step; None without answers."""
    total = sum(steps.values())
    if not total:
        return None
    found: list[float] = []
    seen = 0.0
    for step in sorted(steps):
        seen += steps[step]
        while len(found) < 3 and seen >= (0.5, 0.9, 0.99)[len(found)] * total * (1 - 1e-9):
            found.append(_round(find_end_s(step)))
    return Percentiles(p50_s=found[0], p90_s=found[1], p99_s=found[2])


def _cap(found: Percentiles, longest_s: float) -> Percentiles:
    """A step's end may lie behind the slowest answer."""
    capped = {name: min(value, longest_s) for name, value in msgspec.structs.asdict(found).items()}
    return Percentiles(**capped) if longest_s > 0 else found


def _make_bars(steps: Steps) -> tuple[DurationBar, ...]:
    """Four bars a doubling, without gaps from the fastest to the slowest."""
    counts: Steps = {}
    for step, count in steps.items():
        doubling, rest = divmod(step, STEPS_PER_DOUBLING)
        bar = doubling * len(_BARS) + bisect.bisect_right(_BARS, rest) - 1
        counts[bar] = counts.get(bar, 0.0) + count
    return tuple(
        DurationBar(low_s=_find_begin(bar), high_s=_find_begin(bar + 1), count=round(counts.get(bar, 0.0), 1))
        for bar in range(min(counts), max(counts) + 1)
    )


def _find_begin(bar: int) -> float:
    doubling, place = divmod(bar, len(_BARS))
    return _round(find_end_s(doubling * STEPS_PER_DOUBLING + _BARS[place] - 1))


def _find_noted(duration_s: float) -> int:
    """The step of a noted percentile, which is the end of a step of the dispatcher's own."""
    return find_step(duration_s * (1 - 1e-9))


def _round(duration_s: float) -> float:
    """Three digits that count: steps are not finer."""
    return float(f"{duration_s:.3g}")
