"""The one queue that all replicas pull from: fresh lines in order, retries when they are due, suspects a few at a time.

A replica takes when it has room, so a fast one takes more. Holds a request only while it is in flight or waits for a retry.
"""

from __future__ import annotations

import asyncio
import collections
import heapq
import random
from collections.abc import Callable, Iterable
from typing import Protocol

from runtime.dispatcher.flight import Request
from runtime.engines.backoff import next_delay

BYTES_IN_FLIGHT = 256 * 1024 * 1024
SUSPECTS_IN_FLIGHT = 16  # of one replica; what is in flight at a second death is tried alone, so this bounds that work
RETRY_BASE_S, RETRY_CAP_S = 0.25, 30.0
_LOOK_AHEAD = 32


class Taker(Protocol):
    """What the queue asks of a replica."""

    in_flight: int
    suspects: int
    is_alone: bool


class RequestQueue:
    """`done` is the journal's map of finished lines; on_due is called when a waiting request can be taken again."""

    def __init__(
        self,
        done: bytearray,
        *,
        on_due: Callable[[], None],
        length: Callable[[int], int],
        order: Iterable[int] | None = None,
        draw: random.Random | None = None,
    ) -> None:
        self._done = done
        self._on_due = on_due
        self._length = length
        self._order = None if order is None else iter(order)
        self._draw = draw or random.Random()
        self._loop = asyncio.get_running_loop()
        self._position = 0
        self._has_fresh = True
        self._due: collections.deque[Request] = collections.deque()
        self._suspects: collections.deque[Request] = collections.deque()
        self._alone: collections.deque[Request] = collections.deque()
        self._later: list[tuple[float, int, Request]] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self.bytes_in_flight = 0
        self.is_closed = False
        self.is_starved = False

    @property
    def waiting(self) -> int:
        """Requests that were sent before and will be sent again."""
        return len(self._due) + len(self._suspects) + len(self._alone) + len(self._later)

    @property
    def is_empty(self) -> bool:
        """Whether everything is done or in flight."""
        return not self._has_fresh and self.waiting == 0

    def take(self, taker: Taker, *, has_others: bool) -> Request | None:
        """The next request for this replica. has_others: whether another one is ready, so that it may be choosy."""
        if self.is_closed or taker.is_alone:
            return None
        if self.bytes_in_flight >= BYTES_IN_FLIGHT:
            self.is_starved = True
            return None
        request = (
            self._take_due(self._due, taker, has_others)
            or self._take_suspect(taker, has_others)
            or self._take_fresh()
            or self._take_alone(taker, has_others)
        )
        if request is not None and not request.size:
            request.size = self._length(request.line)
        return request

    def depart(self, request: Request) -> None:
        """A request is being sent: its bytes are in memory until it arrives."""
        self.bytes_in_flight += request.size

    def arrive(self, request: Request) -> None:
        """A sending has ended, whatever becomes of the request."""
        self.bytes_in_flight -= request.size
        if self.is_starved:
            self.is_starved = False
            self._loop.call_soon(self._on_due)

    def put_back(self, request: Request, *, delay_s: float = 0.0) -> None:
        """Send it again after a while (at once with 0)."""
        if delay_s <= 0:
            self._make_due(request)
            self._loop.call_soon(self._on_due)
            return
        self._sequence += 1
        heapq.heappush(self._later, (self._loop.time() + delay_s, self._sequence, request))
        self._set_timer()

    def retry_delay(self, request: Request) -> float:
        """Decorrelated jitter from this request's last delay."""
        request.delay_s = next_delay(request.delay_s, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, draw=self._draw)
        return request.delay_s

    def close(self) -> None:
        """Hand out nothing any more."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _take_fresh(self) -> Request | None:
        if not self._has_fresh:
            return None
        line = self._next_in_order() if self._order is not None else self._done.find(0, self._position)
        if line < 0:
            self._has_fresh = False
            return None
        self._position = line + 1
        return Request(line)

    def _next_in_order(self) -> int:
        assert self._order is not None
        return next((line for line in self._order if not self._done[line]), -1)

    def _take_due(self, waiting: collections.deque[Request], taker: Taker, has_others: bool) -> Request | None:
        """The first one that did not just fail on this very replica, unless there is no other to give it to."""
        for position in range(min(len(waiting), _LOOK_AHEAD)):
            request = waiting[position]
            if request.avoid is not taker or not has_others:
                del waiting[position]
                return request
        return None

    def _take_suspect(self, taker: Taker, has_others: bool) -> Request | None:
        if not self._suspects or taker.suspects >= SUSPECTS_IN_FLIGHT:
            return None
        return self._take_due(self._suspects, taker, has_others)

    def _take_alone(self, taker: Taker, has_others: bool) -> Request | None:
        if not self._alone or taker.in_flight > 0 or self._due or self._suspects:
            return None
        return self._take_due(self._alone, taker, has_others)

    def _make_due(self, request: Request) -> None:
        places = (self._due, self._suspects, self._alone)
        places[min(request.deaths, 2)].append(request)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._later and not self.is_closed:
            self._timer = self._loop.call_at(self._later[0][0], self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._later and self._later[0][0] <= now + 0.001:
            self._make_due(heapq.heappop(self._later)[2])
        self._set_timer()
        self._on_due()
