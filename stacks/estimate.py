"""What a run may cost: low, likely, high, with the assumptions in words. Pure; called by the plan."""

from __future__ import annotations

import msgspec

# Output tokens per second of one GPU under a full batch: published figures for 7B to 70B models on current GPUs lie between
# the first and the last. The plan's spread is this spread, and the run itself replaces it by what it measures.
_SLOW_TOKENS_PER_S = 700.0
_LIKELY_TOKENS_PER_S = 2500.0
_FAST_TOKENS_PER_S = 8000.0
# A prompt token costs about this share of an output token, because prompts are read in parallel.
_PROMPT_SHARE = 0.08
_BYTES_PER_TOKEN = 4.0
_DEFAULT_OUTPUT_TOKENS = 300.0
_BOOT_MINUTES = (2.0, 5.0, 15.0)
_RELEASE_MINUTES = 1.0


class InputSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in the input: lines, their bytes, and the sum of the max_tokens that lines name."""

    requests: int
    bytes: int
    max_tokens_sum: int = 0
    requests_without_max_tokens: int = 0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """USD and hours for the whole run, boots and release included; low <= likely <= high."""

    low_usd: float
    likely_usd: float
    high_usd: float
    low_hours: float
    likely_hours: float
    high_hours: float
    assumptions: tuple[str, ...]


def make_estimate(
    summary: InputSummary,
    *,
    replicas: int,
    gpus: int,
    usd_per_hour: float,
    max_usd: float | None,
    max_hours: float | None,
) -> Estimate:
    """Cost of summary on `replicas` machines of `gpus` GPUs at usd_per_hour each; limits cut the high end."""
    prompt_tokens = summary.bytes / _BYTES_PER_TOKEN
    output_tokens = summary.max_tokens_sum + summary.requests_without_max_tokens * _DEFAULT_OUTPUT_TOKENS
    work = output_tokens + prompt_tokens * _PROMPT_SHARE
    speeds = (_FAST_TOKENS_PER_S, _LIKELY_TOKENS_PER_S, _SLOW_TOKENS_PER_S)
    hours = [
        _add_boot(work / (speed * max(gpus, 1) * replicas) / 3600, boot)
        for speed, boot in zip(speeds, _BOOT_MINUTES, strict=True)
    ]
    if max_hours is not None:
        hours = [min(each, max_hours) for each in hours]
    usd = [each * replicas * usd_per_hour for each in hours]
    if max_usd is not None:
        usd[2] = min(usd[2], max(max_usd, usd[1]))
    return Estimate(
        low_usd=round(usd[0], 2),
        likely_usd=round(usd[1], 2),
        high_usd=round(usd[2], 2),
        low_hours=round(hours[0], 3),
        likely_hours=round(hours[1], 3),
        high_hours=round(hours[2], 3),
        assumptions=_describe(prompt_tokens, output_tokens, usd_per_hour, replicas),
    )


def _add_boot(hours: float, boot_minutes: float) -> float:
    return hours + (boot_minutes + _RELEASE_MINUTES) / 60


def _describe(prompt_tokens: float, output_tokens: float, usd_per_hour: float, replicas: int) -> tuple[str, ...]:
    return (
        f"about {prompt_tokens:,.0f} prompt tokens (4 bytes each) and at most {output_tokens:,.0f} output tokens",
        f"{_SLOW_TOKENS_PER_S:,.0f} / {_LIKELY_TOKENS_PER_S:,.0f} / {_FAST_TOKENS_PER_S:,.0f} output tokens per second and GPU",
        f"{_BOOT_MINUTES[0]:.0f} / {_BOOT_MINUTES[1]:.0f} / {_BOOT_MINUTES[2]:.0f} minutes until a machine works",
        f"{replicas} machine(s) at {usd_per_hour:.2f} USD an hour each (the first choice)",
    )
