"""A request on its way, and each sending of it from its first byte to its end. The queue hands requests out; the sender makes
the flights, the replica watches them."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

# Why we ended a sending ourselves: its deadline passed, the engine made no token for too long, the machine left, the
# other of two twins was first, the dispatcher stops.
AbortCause = Literal["deadline", "stalled", "left", "twin", "stop"]

SHORTEST_DEADLINE_S = 600.0
DEADLINE_FACTOR = 3.0
ASSUMED_TOKENS = 32768  # of a request that sets no max_tokens
ASSUMED_TOKEN_S = 0.1  # of an engine whose speed is not known yet


class Request(msgspec.Struct, eq=False):
    """One line of the input on its way; `flights` are its sendings that are in flight now (two when hedged).

    attempts: tries that count; sent: all tries; busy: times it was turned away; busy_mark: answers that others had got
    by the last such time; deaths: engines that died while they had it; avoid: the replica that it last failed on.
    """

    line: int
    size: int = 0
    attempts: int = 0
    sent: int = 0
    busy: int = 0
    busy_mark: int = 0
    deaths: int = 0
    delay_s: float = 0.0
    avoid: object = None
    flights: list[Flight] = msgspec.field(default_factory=list)


class Flight(msgspec.Struct, eq=False):
    """One sending. Times are the event loop's, in seconds."""

    request: Request
    task: asyncio.Task[None]
    sent_at: float
    deadline_at: float
    cause: AbortCause | None = None

    def abort(self, cause: AbortCause) -> None:
        """Close the connection, which makes the engine drop the request; the sender learns why from `cause`."""
        if self.cause is None:
            self.cause = cause
            self.task.cancel()


def make_deadline_s(*, timeout_s: float, max_tokens: int, latency_s: float, token_s: float) -> float:
    """How long an answer may take: what the user set, else three times what this engine's speed makes likely.

    latency_s and token_s are the replica's 99th percentiles so far (whole answers, seconds per output token), 0 unknown.
    """
    if timeout_s > 0:
        return timeout_s
    tokens = max_tokens if max_tokens >= 0 else ASSUMED_TOKENS
    return max(SHORTEST_DEADLINE_S, DEADLINE_FACTOR * (latency_s + tokens * (token_s or ASSUMED_TOKEN_S)))
