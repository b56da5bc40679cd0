"""Sends to one replica, as many requests at a time as its window has room for. Made by the fleet; each slot calls the sender."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.dispatcher.flight import AbortCause, Request
from runtime.dispatcher.replica import Replica
from runtime.dispatcher.request_queue import RequestQueue
from runtime.dispatcher.sender import Sender

LEAVE_TIMEOUT_S = 5.0


class Slots:
    """has_others: whether another replica is ready, so that this one need not take what just failed on it."""

    def __init__(
        self, replica: Replica, queue: RequestQueue, sender: Sender, *, has_others: Callable[[], bool]
    ) -> None:
        self.replica = replica
        self._queue = queue
        self._sender = sender
        self._has_others = has_others
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def pump(self) -> None:
        """Start as many slots as the window has room for and the queue has requests."""
        replica = self.replica
        while replica.has_room(replica.in_flight):
            request = self._queue.take(replica, has_others=self._has_others())
            if request is None:
                return
            self.start(request)

    def start(self, request: Request) -> None:
        """Send this request in a slot of its own, which then goes on with others."""
        self.replica.in_flight += 1
        slot = self._loop.create_task(self._run_slot(request, is_suspect=self._hold(request)))
        self._tasks.add(slot)
        slot.add_done_callback(self._end_slot)

    async def abort(self, cause: AbortCause) -> None:
        """End what is in flight and wait for its slots."""
        self.replica.abort_all(cause)
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=LEAVE_TIMEOUT_S)

    async def _run_slot(self, request: Request, *, is_suspect: bool) -> None:
        replica = self.replica
        following: Request | None = request
        while following is not None:
            try:
                await self._sender.send(following, replica)
            finally:
                replica.suspects -= is_suspect
                replica.is_alone = False
            following = self._take_next()
            is_suspect = following is not None and self._hold(following)

    def _take_next(self) -> Request | None:
        """As pump, for a slot that is free but still counted."""
        replica = self.replica
        if not replica.has_room(replica.in_flight - 1):
            return None
        replica.in_flight -= 1
        following = self._queue.take(replica, has_others=self._has_others())
        replica.in_flight += 1
        return following

    def _hold(self, request: Request) -> bool:
        """Count it in; whether an engine died while it had this request."""
        self.replica.suspects += request.deaths > 0
        self.replica.is_alone = request.deaths > 1
        return request.deaths > 0

    def _end_slot(self, slot: asyncio.Task[None]) -> None:
        self.replica.in_flight -= 1
        self._tasks.discard(slot)
        if not slot.cancelled() and (fault := slot.exception()) is not None:
            self.replica.on_fault(fault)
