"""How long answers took, as a histogram that leaves a process: the dispatcher writes it down, a run's report reads it."""

from __future__ import annotations

import math

import msgspec

SMALLEST_S = 0.0001
STEPS_PER_DOUBLING = 32
STEPS = STEPS_PER_DOUBLING * 32  # up to 5 days


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """Of answers alone: from the sending that was answered to its last byte. steps: pairs of a step and its answers.

    Step n ends at 0.0001 s * 2 ** (n // 32) * (1 + (n % 32 + 1) / 32), where the next one begins: it is at most 3.2 % wide.
    """

    answers: int = 0
    longest_s: float = 0.0
    steps: tuple[tuple[int, int], ...] = ()


def find_step(duration_s: float) -> int:
    """The step that a duration lies in; what is absurdly short or long goes into the first or the last one."""
    if duration_s < SMALLEST_S:
        return 0
    # Without a logarithm, since each answer passes here: the mantissa lies between 0.5 and 1.
    mantissa, exponent = math.frexp(duration_s / SMALLEST_S)
    step = (exponent - 2) * STEPS_PER_DOUBLING + int(mantissa * 2 * STEPS_PER_DOUBLING)
    return step if step < STEPS else STEPS - 1


def find_end_s(step: int) -> float:
    """Where a step ends; -1 is where the first one begins."""
    doublings, rest = divmod(step + 1, STEPS_PER_DOUBLING)
    return float(SMALLEST_S * 2**doublings * (1 + rest / STEPS_PER_DOUBLING))
