"""A figure that is not known exactly: low, likely, high. Used by the estimate and by what it stands on."""

from __future__ import annotations

import msgspec


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """low <= likely <= high."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(low=self.low * factor, likely=self.likely * factor, high=self.high * factor)

    def by(self, other: Span) -> Span:
        """The product of two, low with low and high with high."""
        return Span(low=self.low * other.low, likely=self.likely * other.likely, high=self.high * other.high)

    def plus(self, other: Span) -> Span:
        return Span(low=self.low + other.low, likely=self.likely + other.likely, high=self.high + other.high)

    def widened(self, factor: float) -> Span:
        return Span(low=self.low / factor, likely=self.likely, high=self.high * factor)


def make_even(value: float) -> Span:
    """A figure that is known."""
    return Span(low=value, likely=value, high=value)
