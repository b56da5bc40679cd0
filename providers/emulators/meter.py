"""What one emulated machine has cost so far, on the cloud's clock. Read by the billing route and by the tests."""

from __future__ import annotations

from typing import Literal

import msgspec

Item = Literal["gpu", "cpu", "disk"]
_HOUR_S = 3600.0


class Span(msgspec.Struct, kw_only=True):
    item: Item
    usd_per_hour: float
    start: float
    end: float | None = None


class Meter:
    """Spans of time at a rate; at most one span of each item is open."""

    def __init__(self, *, granularity_s: float = 0.0) -> None:
        self.spans: list[Span] = []
        self._granularity_s = granularity_s

    def start(self, item: Item, usd_per_hour: float, now: float) -> None:
        self.stop(item, now)
        self.spans.append(Span(item=item, usd_per_hour=usd_per_hour, start=now))

    def stop(self, item: Item, now: float) -> None:
        for span in self.spans:
            if span.item == item and span.end is None:
                span.end = now

    def stop_all(self, now: float) -> None:
        for span in self.spans:
            if span.end is None:
                span.end = now

    def billed_s(self, now: float) -> float:
        """Seconds for which the computer itself was billed."""
        return sum(self._length_s(span, now) for span in self.spans if span.item != "disk")

    def usd(self, now: float, *, item: Item | None = None) -> float:
        return sum(
            span.usd_per_hour * self._length_s(span, now) / _HOUR_S
            for span in self.spans
            if item is None or span.item == item
        )

    def usd_between(self, item: Item, start: float, end: float, now: float) -> float:
        """USD of an item that fell between two moments."""
        total = 0.0
        for span in self.spans:
            if span.item == item:
                overlap = min(end, span.end if span.end is not None else now) - max(start, span.start)
                total += span.usd_per_hour * max(0.0, overlap) / _HOUR_S
        return total

    def _length_s(self, span: Span, now: float) -> float:
        length = max(0.0, (span.end if span.end is not None else now) - span.start)
        if self._granularity_s and length > 0:
            return -(-length // self._granularity_s) * self._granularity_s
        return length
