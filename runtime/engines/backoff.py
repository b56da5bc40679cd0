"""How long to wait before the next try. Pure; called by the request queue, replicas and tunnels."""

from __future__ import annotations

import random


def next_delay(previous_s: float, *, base_s: float, cap_s: float, draw: random.Random) -> float:
    """Decorrelated jitter: somewhere between the base and three times the last delay, at most the cap."""
    return min(cap_s, draw.uniform(base_s, max(base_s, previous_s * 3)))


class Backoff:
    """A delay that grows while things fail and starts again when they work."""

    def __init__(self, *, base_s: float, cap_s: float, draw: random.Random | None = None) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._draw = draw or random.Random()
        self._previous_s = 0.0

    def next(self) -> float:
        self._previous_s = next_delay(self._previous_s, base_s=self._base_s, cap_s=self._cap_s, draw=self._draw)
        return self._previous_s

    def reset(self) -> None:
        self._previous_s = 0.0
