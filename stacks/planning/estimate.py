"""What a run may cost: low, likely, high, with the assumptions in words. Pure; called by the plan."""

from __future__ import annotations

import msgspec

from stacks.planning.span import Span
from stacks.terminal.count_words import count_things
from stacks.terminal.duration_words import format_duration

_NOTHING = Span(low=0, likely=0, high=0)
# Finer than a second of the dearest machine, so that hours x price is USD to the cent.
_HOUR_DIGITS = 6


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    """Prompt tokens as they were counted before anything ran, and in words how."""

    tokens: Span
    words: str


class InputSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in the input: lines, their bytes, the sum of the max_tokens that lines name, and prompt tokens where
    the model's tokenizer was at hand."""

    requests: int
    bytes: int
    max_tokens_sum: int = 0
    requests_without_max_tokens: int = 0
    counted: TokenCount | None = None


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """One figure that an estimate stands on. source: tokenizer, receipts, table, limits or guess; words says it in full."""

    span: Span
    source: str
    words: str


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is assumed about a run before it. tokens_per_s: of one machine, as work tokens (an output token, or a
    prompt token by its share); work_tokens: all of the run."""

    prompt_tokens: Assumption
    output_tokens: Assumption
    tokens_per_s: Assumption
    boot_minutes: Assumption
    work_tokens: Span
    release_minutes: float


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """USD and hours for the whole run, boots and release included; low <= likely <= high.

    usd is hours x replicas x price to the cent. assumptions: in words, in the order in which they are shown; basis: the
    same in figures, None in plans that are older than it. warnings: what will not go as the limits are.
    """

    low_usd: float
    likely_usd: float
    high_usd: float
    low_hours: float
    likely_hours: float
    high_hours: float
    assumptions: tuple[str, ...]
    basis: Basis | None = None
    warnings: tuple[str, ...] = ()


def make_estimate(
    basis: Basis, *, replicas: int, usd_per_hour: float, max_usd: float | None, max_hours: float
) -> Estimate:
    """Cost of a run on `replicas` machines at usd_per_hour each; limits cut the high end. max_hours: how long the lease lasts."""
    needed = _count_hours(basis, replicas)
    hours = _cut(needed, usd_per_hour * replicas, max_usd, max_hours)
    usd = hours.times(replicas * usd_per_hour)
    return Estimate(
        low_usd=round(usd.low, 2),
        likely_usd=round(usd.likely, 2),
        high_usd=round(usd.high, 2),
        low_hours=hours.low,
        likely_hours=hours.likely,
        high_hours=hours.high,
        assumptions=_describe(basis, usd_per_hour, replicas),
        basis=basis,
        warnings=_warn(needed, usd_per_hour * replicas, max_usd, max_hours),
    )


def _count_hours(basis: Basis, replicas: int) -> Span:
    """Little work on a fast machine is the low end, much on a slow one the high."""
    speed, work, boot = basis.tokens_per_s.span, basis.work_tokens, basis.boot_minutes.span
    return Span(
        low=work.low / speed.high / replicas / 3600 + (boot.low + basis.release_minutes) / 60,
        likely=work.likely / speed.likely / replicas / 3600 + (boot.likely + basis.release_minutes) / 60,
        high=work.high / speed.low / replicas / 3600 + (boot.high + basis.release_minutes) / 60,
    )


def _cut(hours: Span, usd_per_hour: float, max_usd: float | None, max_hours: float) -> Span:
    """The time limit ends the run whatever it needs; money ends it too, but a plan that is too dear must look it."""
    low, likely, high = (min(each, max_hours) for each in (hours.low, hours.likely, hours.high))
    if max_usd is not None and usd_per_hour > 0:
        high = min(high, max(max_usd / usd_per_hour, likely))
    return Span(low=round(low, _HOUR_DIGITS), likely=round(likely, _HOUR_DIGITS), high=round(high, _HOUR_DIGITS))


def _warn(needed: Span, usd_per_hour: float, max_usd: float | None, max_hours: float) -> tuple[str, ...]:
    found = []
    if needed.likely > max_hours:
        found.append(
            f"likely {needed.likely:.1f} h of work and boot, and the lease lasts {max_hours:g} h (limits.max_hours or"
            " completion_window): lines that are not reached come back as batch_expired"
        )
    if max_usd is not None and needed.low * usd_per_hour <= max_usd < needed.likely * usd_per_hour:
        found.append(
            f"likely {needed.likely * usd_per_hour:.2f} USD for all lines, and limits.max_usd is {max_usd:.2f}: lines that"
            " are not reached come back as budget_exceeded"
        )
    return tuple(found)


def _describe(basis: Basis, usd_per_hour: float, replicas: int) -> tuple[str, ...]:
    machines, each = count_things(replicas, "machine"), " each" if replicas > 1 else ""
    return (
        f"prompts: {describe_span(basis.prompt_tokens.span)} tokens; {basis.prompt_tokens.words}",
        f"answers: {describe_span(basis.output_tokens.span)} tokens; {basis.output_tokens.words}",
        f"speed: {describe_span(basis.tokens_per_s.span, falling=True)} tokens/s a machine; {basis.tokens_per_s.words}",
        f"boot: {_describe_minutes(basis.boot_minutes.span)}; {basis.boot_minutes.words}",
        f"release: {format_duration(basis.release_minutes * 60)}",
        f"price: {machines} at {usd_per_hour:.2f} USD/h{each}, the first choice",
    )


def _describe_minutes(span: Span) -> str:
    texts = [format_duration(each * 60) for each in (span.low, span.likely, span.high)]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def describe_span(span: Span, *, falling: bool = False) -> str:
    """`800 / 2,200 / 3,400`, or one figure where all are the same; falling: in the order of what they cost."""
    values = (span.high, span.likely, span.low) if falling else (span.low, span.likely, span.high)
    texts = [f"{_round(each):,.0f}" if each >= 20 or each == 0 else f"{each:.2g}" for each in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _round(value: float) -> float:
    """To three digits: an estimate knows no more."""
    return float(f"{value:.3g}")
