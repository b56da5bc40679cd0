"""All replicas of a run: they join, leave, are pumped when there is work, help each other at the end. Run by delivery."""

from __future__ import annotations

import asyncio
import logging

from runtime.dispatcher.hedging import choose_hedges
from runtime.dispatcher.replica import Replica
from runtime.dispatcher.request_queue import RequestQueue
from runtime.dispatcher.sender import Sender
from runtime.dispatcher.slots import Slots

TICK_S = 0.5
STOP_TIMEOUT_S = 10.0
_log = logging.getLogger("leasehold.fleet")


class Fleet:
    """`fault` is resolved by an error in our own code or by an input that changed: the dispatcher cannot go on."""

    def __init__(self, queue: RequestQueue, sender: Sender, *, hedge: bool) -> None:
        self.hedged = 0
        self._loop = asyncio.get_running_loop()
        self.fault: asyncio.Future[BaseException] = self._loop.create_future()
        self._queue = queue
        self._sender = sender
        self._is_hedging = hedge
        self._ready = 0
        self._slots: dict[int, Slots] = {}
        self._tasks: dict[Replica, asyncio.Task[None]] = {}

    @property
    def replicas(self) -> list[Replica]:
        return [slots.replica for slots in self._slots.values()]

    @property
    def has_ready(self) -> bool:
        return self._ready > 0

    def join(self, replica: Replica) -> None:
        """Start a replica; one with the same index that has left gives way to it."""
        slots = Slots(replica, self._queue, self._sender, has_others=lambda: self._ready > (replica.state == "ready"))
        self._slots.pop(replica.index, None)
        self._slots[replica.index] = slots
        replica.on_room = slots.pump
        replica.on_state = self._on_state
        replica.on_fault = self._on_fault
        task = self._loop.create_task(replica.run())
        task.add_done_callback(self._end)
        self._tasks[replica] = task
        _log.info("%s joins", replica.name)

    async def leave(self, replica: Replica) -> None:
        """End what it has in flight (others take it over) and everything that belongs to it."""
        task = self._tasks.pop(replica, None)
        if task is None:
            return
        _log.info("%s leaves", replica.name)
        replica.drain()
        await self._slots[replica.index].abort("left")
        task.cancel()
        await asyncio.wait([task])

    def pump(self) -> None:
        """Let every replica with room take requests."""
        for slots in self._slots.values():
            slots.pump()

    async def tick(self) -> None:
        """Now and then: at the end of the batch, give the slow ones' requests to idle replicas as well."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._is_hedging and self._ready > 1 and self._queue.is_empty:
                for flight, replica in choose_hedges(self.replicas, now=self._loop.time()):
                    self.hedged += 1
                    self._slots[replica.index].start(flight.request)

    async def stop(self, *, grace_s: float, is_urgent: asyncio.Event) -> None:
        """Take nothing new, give what is in flight up to grace_s seconds, end the rest, then everything."""
        self._queue.close()
        deadline = self._loop.time() + grace_s
        while any(replica.in_flight for replica in self.replicas) and self._loop.time() < deadline:
            if is_urgent.is_set():
                break
            await asyncio.sleep(0.02)
        await asyncio.gather(*(slots.abort("stop") for slots in self._slots.values()))
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=STOP_TIMEOUT_S)

    def _on_state(self) -> None:
        self._ready = sum(replica.state == "ready" for replica in self.replicas)
        self.pump()

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._on_fault(fault)

    def _on_fault(self, fault: BaseException) -> None:
        if not self.fault.done():
            self.fault.set_result(fault)
