"""Percentiles of durations in a fixed few hundred bytes. Used for stats.jsonl, deadlines and hedging."""

from __future__ import annotations

import math
from array import array

_STEPS_PER_DOUBLING = 8
_SMALLEST_S = 0.0001
_BUCKETS = 8 * 32  # up to 5 days


class Latencies:
    """A histogram with 9 % wide steps from 0.1 ms up."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets = array("Q", bytes(8 * _BUCKETS))

    def add(self, duration_s: float) -> int:
        """Count it; the step that it lies in, for another histogram that counts the same answer."""
        step = int(math.log2(max(duration_s, _SMALLEST_S) / _SMALLEST_S) * _STEPS_PER_DOUBLING)
        step = min(step, _BUCKETS - 1)
        self.add_step(step)
        return step

    def add_step(self, step: int) -> None:
        self.count += 1
        self._buckets[step] += 1

    def percentile(self, share: float) -> float:
        """The duration that this share (0 to 1) did not pass, rounded up to its step; 0 when nothing was added."""
        wanted, seen = self.count * share, 0
        for step, count in enumerate(self._buckets):
            seen += count
            if count and seen >= wanted:
                return float(_SMALLEST_S * 2 ** ((step + 1) / _STEPS_PER_DOUBLING))
        return 0.0
