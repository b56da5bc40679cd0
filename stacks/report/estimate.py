"""What the plan expected beside what came, figure by figure, for a run's report. Called by stacks.report.data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from stacks.planning.experience import PROMPT_SHARE
from stacks.planning.plan import Plan
from stacks.planning.span import Span
from stacks.report.machines import MachineBar
from stacks.report.outcome import Outcome

Unit = Literal["usd", "hours", "tokens", "tokens_per_s", "minutes"]


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the estimate; actual None: nothing to compare with (yet)."""

    name: str
    unit: Unit
    expected: Span
    actual: float | None

    @property
    def error(self) -> float | None:
        """By how much of the likely figure it was off: 0.5 is half as much again."""
        if self.actual is None or not self.expected.likely:
            return None
        return self.actual / self.expected.likely - 1


def compare_estimate(plan: Plan, outcome: Outcome, bars: Sequence[MachineBar]) -> tuple[Expectation, ...]:
    """Money and time; and, where the plan says what it stands on, tokens, speed and boot."""
    estimate = plan.estimate
    usd = Span(low=estimate.low_usd, likely=estimate.likely_usd, high=estimate.high_usd)
    hours = Span(low=estimate.low_hours, likely=estimate.likely_hours, high=estimate.high_hours)
    found = [
        Expectation(name="Cost", unit="usd", expected=usd, actual=outcome.usd),
        Expectation(name="Time with machines", unit="hours", expected=hours, actual=_count_hours(bars)),
    ]
    basis = estimate.basis
    if basis is None:
        return tuple(found)
    prompts, answers = _count_tokens(plan, outcome)
    work_s = sum(bar.seconds("work") for bar in bars)
    tokens = answers + PROMPT_SHARE * prompts if answers is not None and prompts is not None else None
    boots = [bar.seconds("boot") / 60 for bar in bars if bar.joined]
    rows: list[tuple[str, Unit, Span, float | None]] = [
        ("Prompt tokens", "tokens", basis.prompt_tokens.span, prompts),
        ("Answer tokens", "tokens", basis.output_tokens.span, answers),
        (
            "Work tokens/s a machine",
            "tokens_per_s",
            basis.tokens_per_s.span,
            tokens / work_s if tokens and work_s else None,
        ),
        ("Boot of a machine", "minutes", basis.boot_minutes.span, sum(boots) / len(boots) if boots else None),
    ]
    found += [Expectation(name=name, unit=unit, expected=span, actual=actual) for name, unit, span, actual in rows]
    return tuple(found)


def _count_hours(bars: Sequence[MachineBar]) -> float | None:
    """From the first create to the last machine gone, or to now."""
    segments = [segment for bar in bars for segment in bar.segments]
    if not segments:
        return None
    return (max(each.end for each in segments) - min(each.start for each in segments)) / 3600


def _count_tokens(plan: Plan, outcome: Outcome) -> tuple[float | None, float | None]:
    """Prompt and answer tokens of this run alone, without what it took over."""
    if outcome.usage is None:
        return None, None
    taken = plan.taken_over.usage if plan.taken_over else None
    return (
        outcome.usage.input_tokens - (taken.input_tokens if taken else 0),
        outcome.usage.output_tokens - (taken.output_tokens if taken else 0),
    )
