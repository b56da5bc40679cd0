"""One engine as the dispatcher sees it: its state, its window, what it has in flight. Made by
membership; its slots and the sender tell it what they do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from runtime.batch.tokens import Tokens
from runtime.dispatcher.flight import AbortCause, Flight
from runtime.dispatcher.latency import Latencies
from runtime.dispatcher.window import Window
from runtime.engines.backoff import Backoff
from runtime.engines.engine_load import EngineLoad, parse_load
from runtime.engines.exchange import Answer, Health

POLL_S = 1.0
SEARCH_POLL_S = 0.25
HEALTH_TIMEOUT_S = 5.0
PATIENCE_S = 3.0  # until a server that has never answered is told of
STALL_S = 120.0
TUNNEL_NEWS_S = 0.05  # when ssh dies, our sockets may hear of it before we do
ReplicaState = Literal["connecting", "ready", "draining", "down", "left"]
_log = logging.getLogger("leasehold.replica")


class Link(Protocol):
    """How requests reach the engine (runtime.engines.transport.Transport)."""

    async def post(self, body: bytes, *, request_id: str) -> Answer: ...
    async def check_health(self, *, timeout_s: float) -> Health: ...
    async def fetch_metrics(self, *, timeout_s: float) -> bytes | None: ...
    async def close(self) -> None: ...


class Replica:
    """in_flight counts slots; has_died: the engine, not the way to it, was found dead when it last went down."""

    def __init__(
        self,
        name: str,
        index: int,
        transport: Link,
        *,
        cap: int = 0,
        companions: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (),
        is_reachable: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.index = index
        self.transport = transport
        self.window = Window(cap=cap)
        self.state: ReplicaState = "connecting"
        self.flights: set[Flight] = set()
        self.in_flight = self.suspects = 0
        self.is_alone = self.has_died = False
        self.completed = self.failed = self.output_tokens = 0
        self.latencies, self.recent, self.token_times = Latencies(), Latencies(), Latencies()
        self.slow_answer_s = self.slow_token_s = 0.0
        self.load: EngineLoad | None = None
        # Set by the fleet: whom to tell of room for more, of a new state, of a fault in our own code.
        self.on_room: Callable[[], None] = lambda: None
        self.on_state: Callable[[], None] = lambda: None
        self.on_fault: Callable[[BaseException], None] = lambda _fault: None
        self._companions = companions
        self._is_reachable = is_reachable
        self._loop = asyncio.get_running_loop()
        self._made_at = self._loop.time()
        self._has_told = False
        self._paused_until = 0.0
        self._busy = Backoff(base_s=0.1, cap_s=2.0)
        self._probes = Backoff(base_s=0.1, cap_s=3.0)
        self._wake = asyncio.Event()
        self._checking: asyncio.Task[bool] | None = None
        self._check_began_at = self._heard_at = self._progress_at = float("-inf")
        self._has_metrics = True

    def has_room(self, in_flight: int) -> bool:
        """Whether one more may be sent beside so many."""
        return self.state == "ready" and in_flight < self.window.size and self._loop.time() >= self._paused_until

    # What the sender tells

    def on_answer(self, flight: Flight, tokens: Tokens) -> float:
        """Count it; how many seconds it took."""
        now = self._loop.time()
        spent_s = now - flight.sent_at
        self.completed += 1
        self.output_tokens += tokens.output
        self.recent.add_step(self.latencies.add(spent_s))
        if tokens.output:
            self.token_times.add(spent_s / tokens.output)
        self._heard_at = now
        self._busy.reset()
        self._steer_by_answers(now)
        return spent_s

    def on_refusal(self, flight: Flight) -> None:
        self.failed += 1
        self._heard_at = self._loop.time()
        self._steer_by_answers(self._heard_at)

    def _steer_by_answers(self, now: float) -> None:
        before = self.window.size
        self.window.on_answer(now=now, in_flight=self.in_flight)
        if self.window.size > before:
            self._loop.call_soon(self.on_room)

    def on_busy(self, flight: Flight, *, retry_after_s: float) -> None:
        """Turned away: one cut and one pause for all that were in flight together."""
        now = self._heard_at = self._loop.time()
        is_first = self.window.on_busy(sent_at=flight.sent_at, now=now)
        if is_first or retry_after_s:
            pause_s = retry_after_s or self._busy.next()
            self._paused_until = max(self._paused_until, now + pause_s)
            self._loop.call_later(pause_s + 0.001, self.on_room)

    async def check_alive(self) -> bool:
        """Whether the engine answers now, asked once for all who ask together; False puts the replica down."""
        failed_at = self._loop.time()
        while self.state not in ("down", "left", "connecting"):
            if self._checking is None:
                self._check_began_at = self._loop.time()
                self._checking = self._loop.create_task(self._check())
            began_at = self._check_began_at
            is_alive = await asyncio.shield(self._checking)
            if not is_alive or began_at >= failed_at:  # an older check says nothing about what came after it
                return is_alive
        return False

    async def _check(self) -> bool:
        try:
            is_reachable = self._is_reachable()
            health: Health = "gone"
            if is_reachable:
                health = await self.transport.check_health(timeout_s=HEALTH_TIMEOUT_S)
            if health == "gone" and is_reachable:
                await asyncio.sleep(TUNNEL_NEWS_S)
                is_reachable = self._is_reachable()
            if health in ("ok", "silent"):
                return True
            has_died = is_reachable and health != "unreachable"
            self._go_down("the engine is dead" if has_died else "the way to it is cut", has_died=has_died)
            return False
        finally:
            self._checking = None

    # Its life

    async def run(self) -> None:
        """Probe, watch and serve until cancelled; leaves no task, process or connection."""
        companions = [self._loop.create_task(companion()) for companion in self._companions]
        for task in companions:
            task.add_done_callback(self._end_companion)
        try:
            while True:
                await self._watch_once()
        finally:
            self._set_state("left")
            for task in companions:
                task.cancel()
            await asyncio.gather(*companions, return_exceptions=True)
            await self.transport.close()

    def drain(self) -> None:
        """Take nothing new; what is in flight may end."""
        if self.state != "left":
            self._set_state("draining")

    def abort_all(self, cause: AbortCause) -> None:
        """End what is in flight."""
        for flight in list(self.flights):
            flight.abort(cause)

    def _end_companion(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            self.on_fault(fault)

    async def _watch_once(self) -> None:
        if self.state in ("connecting", "down"):
            if await self._probe():
                self._come_up()
            else:
                self._tell_patience()
                await asyncio.sleep(self._probes.next())
            return
        await self._poll_load()
        await self._check_silence()
        self._sweep()
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEARCH_POLL_S if self._is_searching() else POLL_S):
                await self._wake.wait()

    def _is_searching(self) -> bool:
        return self.window.is_searching and self.in_flight >= 0.9 * self.window.size

    def _tell_patience(self) -> None:
        """Once, for whoever typed a wrong address: nothing else would tell waiting from working."""
        if self.state == "connecting" and not self._has_told and self._loop.time() - self._made_at > PATIENCE_S:
            self._has_told = True
            _log.warning("%s does not answer yet; it is asked again and again", self.name)

    async def _probe(self) -> bool:
        return self._is_reachable() and await self.transport.check_health(timeout_s=HEALTH_TIMEOUT_S) == "ok"

    def _come_up(self) -> None:
        if self.state == "down":
            self.window.on_restart()
        self._probes.reset()
        self.has_died = False
        self._has_metrics = True
        self._heard_at = self._progress_at = self._loop.time()
        _log.info("%s is ready", self.name)
        self._set_state("ready")

    def _go_down(self, why: str, *, has_died: bool) -> None:
        self.has_died = has_died
        if self.state == "ready":
            _log.warning("%s is down: %s", self.name, why)
            self._set_state("down")
            self._wake.set()

    def _set_state(self, state: ReplicaState) -> None:
        if self.state != "left":
            self.state = state
            self.on_state()

    async def _poll_load(self) -> None:
        if not self._has_metrics:
            return
        page = await self.transport.fetch_metrics(timeout_s=HEALTH_TIMEOUT_S)
        if page is None:
            return
        self._heard_at = self._loop.time()
        load = parse_load(page)
        self._has_metrics = load is not None
        if load is not None and self.state == "ready":
            if self.load is None or load.generated_tokens != self.load.generated_tokens or load.running == 0:
                self._progress_at = self._heard_at
            self.load = load
            self.window.on_load(load, in_flight=len(self.flights))
            self.on_room()

    def _sweep(self) -> None:
        """End what is past its deadline, and everything when the engine has made no token for too long."""
        self.slow_answer_s = self.latencies.percentile(0.99)
        self.slow_token_s = self.token_times.percentile(0.99)
        now = self._loop.time()
        for flight in list(self.flights):
            if now > flight.deadline_at:
                flight.abort("deadline")
        if self.flights and self._is_stalled(now):
            self._give_up(f"no progress in {STALL_S:.0f} s")

    async def _check_silence(self) -> None:
        """A server that tells no load is asked for its health when it has said nothing for too long."""
        if not self.flights or self._loop.time() - self._heard_at < STALL_S:
            return
        if await self.transport.check_health(timeout_s=HEALTH_TIMEOUT_S) == "ok":
            self._heard_at = self._loop.time()
        else:
            self._give_up(f"no sign of life in {STALL_S:.0f} s")

    def _give_up(self, why: str) -> None:
        self.abort_all("stalled")
        self._go_down(why, has_died=False)

    def _is_stalled(self, now: float) -> bool:
        counts_tokens = self._has_metrics and self.load is not None and self.load.generated_tokens >= 0
        oldest_s = now - min(flight.sent_at for flight in self.flights)
        return counts_tokens and oldest_s > STALL_S and now - self._progress_at > STALL_S
