"""Counts requests of a key in windows, as RunPod tells in its RateLimit headers. Called for every authenticated request."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from providers.emulators.clock import CloudClock

WINDOWS_S = {"minute": 60, "hour": 3600, "day": 86_400}


class Quota:
    """Windows are of the cloud's clock; the seconds that are told to a client are of the client's clock."""

    def __init__(self, clock: CloudClock) -> None:
        self._clock = clock
        self._used: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._window: dict[tuple[str, str], int] = {}

    def count(self, key: str, quotas: Mapping[str, int]) -> str:
        """Count one request; the name of the window whose quota is used up, or ""."""
        exhausted = [window for window in quotas if self._remaining(key, window, quotas) <= 0]
        for window in quotas if not exhausted else ():
            self._used[key, window] += 1
        return exhausted[-1] if exhausted else ""

    def headers(self, key: str, quotas: Mapping[str, int]) -> dict[str, str]:
        state = [
            f'"{window}";r={max(0, self._remaining(key, window, quotas))};t={self.reset_s(window)}' for window in quotas
        ]
        policy = [f'"{window}";q={quotas[window]};w={WINDOWS_S[window]}' for window in quotas]
        return {"RateLimit": ", ".join(state), "RateLimit-Policy": ", ".join(policy)}

    def reset_s(self, window: str) -> int:
        """Seconds of the client's clock until the window starts anew, at least 1."""
        length = WINDOWS_S[window]
        left = length - self._clock.now() % length
        return max(1, math.ceil(self._clock.to_real_s(left)))

    def _remaining(self, key: str, window: str, quotas: Mapping[str, int]) -> int:
        number = int(self._clock.now() // WINDOWS_S[window])
        if self._window.get((key, window)) != number:
            self._window[key, window] = number
            self._used[key, window] = 0
        return quotas[window] - self._used[key, window]
