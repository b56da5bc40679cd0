"""The time of an emulated cloud: it can run faster than ours, be pushed forward, and runs what is due. One per emulator."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime

Action = Callable[[], None]


class CloudClock:
    """Seconds since 1970 as the cloud counts them. speed 60: a minute of the cloud passes in one second of ours.

    Not thread-safe: everything happens on the emulator's own event loop.
    """

    def __init__(self, *, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError("the speed of a clock must be above 0")
        self.speed = speed
        self._real_start = time.monotonic()
        self._start = time.time()
        self._pushed_s = 0.0
        # While an action runs, it is the moment for which it was planned, however late we are.
        self._moment: float | None = None
        self._due: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def now(self) -> float:
        if self._moment is not None:
            return self._moment
        return self._start + self._pushed_s + (time.monotonic() - self._real_start) * self.speed

    def advance(self, seconds: float) -> None:
        """Push the clock forward and run what became due, in order."""
        self._pushed_s += max(0.0, seconds)
        self.run_due()

    def to_real_s(self, cloud_s: float) -> float:
        """How long a span of the cloud's time takes on the client's clock."""
        return cloud_s / self.speed

    def call_at(self, moment: float, action: Action) -> None:
        heapq.heappush(self._due, (moment, next(self._order), action))

    def run_due(self) -> None:
        """Run every action whose moment has come; called before each request and by the emulator's ticker."""
        while self._due and self._due[0][0] <= self.now():
            self._moment, _, action = heapq.heappop(self._due)
            try:
                action()
            finally:
                self._moment = None

    def until_next_real_s(self, *, at_most: float) -> float:
        """Real seconds until the next action, for the ticker's sleep."""
        if not self._due:
            return at_most
        return min(at_most, max(0.0, self.to_real_s(self._due[0][0] - self.now())))


def to_rfc3339(moment: float) -> str:
    """A moment in seconds since 1970 as `2026-11-23T09:00:00.123Z`."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> float:
    """Seconds since 1970; raises ValueError for text that is not such a time."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
