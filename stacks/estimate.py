"""What a run may cost: low, likely, high, with the assumptions in words. Pure; called by the plan."""

from __future__ import annotations

import msgspec

# A prompt token costs about this share of an output token, because prompts are read in parallel.
_PROMPT_SHARE = 0.08
_BYTES_PER_TOKEN = 4.0
_DEFAULT_OUTPUT_TOKENS = 300.0


class _Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Fast, likely and slow: output tokens per second of one GPU under a full batch, and minutes around the work."""

    tokens_per_s: tuple[float, float, float]
    boot_minutes: tuple[float, float, float]
    release_minutes: float


# Published figures for 7B to 70B models on current GPUs lie between the first and the last speed. The plan's spread is
# this spread, and the run itself replaces it by what it measures.
_RENTED = _Pace(tokens_per_s=(8000.0, 2500.0, 700.0), boot_minutes=(2.0, 5.0, 15.0), release_minutes=1.0)
# This computer, with a model small enough for it.
_LOCAL = _Pace(tokens_per_s=(5000.0, 1000.0, 20.0), boot_minutes=(0.05, 0.1, 0.5), release_minutes=0.1)


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
    """Cost of summary on `replicas` machines of `gpus` GPUs (0: this computer) at usd_per_hour each; limits cut the high
    end."""
    pace = _RENTED if gpus else _LOCAL
    prompt_tokens = summary.bytes / _BYTES_PER_TOKEN
    output_tokens = summary.max_tokens_sum + summary.requests_without_max_tokens * _DEFAULT_OUTPUT_TOKENS
    work = output_tokens + prompt_tokens * _PROMPT_SHARE
    hours = [
        work / (speed * max(gpus, 1) * replicas) / 3600 + (boot + pace.release_minutes) / 60
        for speed, boot in zip(pace.tokens_per_s, pace.boot_minutes, strict=True)
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
        low_hours=round(hours[0], 4),
        likely_hours=round(hours[1], 4),
        high_hours=round(hours[2], 4),
        assumptions=_describe(pace, prompt_tokens, output_tokens, usd_per_hour, replicas),
    )


def _describe(
    pace: _Pace, prompt_tokens: float, output_tokens: float, usd_per_hour: float, replicas: int
) -> tuple[str, ...]:
    speeds = " / ".join(f"{speed:,.0f}" for speed in pace.tokens_per_s)
    boots = " / ".join(f"{minutes:g}" for minutes in pace.boot_minutes)
    return (
        f"about {prompt_tokens:,.0f} prompt tokens (4 bytes each) and at most {output_tokens:,.0f} output tokens",
        f"{speeds} output tokens per second and GPU",
        f"{boots} minutes until a machine works",
        f"{replicas} machine(s) at {usd_per_hour:.2f} USD an hour each (the first choice)",
    )
