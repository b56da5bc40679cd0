"""The window against simulated engines: does it find the knee, stay there, and follow when it moves?"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from runtime.dispatcher.window import LARGEST_SIZE, START_SIZE, Window
from runtime.engines.engine_load import EngineLoad


class SimulatedEngine:
    """Works on `knee(now)` requests at once, each for service_s +- 30 %; time is simulated, so this is quick."""

    def __init__(self, knee: Callable[[float], int], *, service_s: float, has_metrics: bool) -> None:
        self.knee, self.service_s, self.has_metrics = knee, service_s, has_metrics
        self.draw = random.Random(3)
        self.now = 0.0
        self.ends: list[float] = []
        self.waiting = 0
        self.answers: list[float] = []
        self.queue_shares: list[tuple[float, float]] = []

    def run(self, window: Window | int, *, until_s: float) -> None:
        poll_at = 1.0
        while self.now < until_s:
            self._fill(window if isinstance(window, int) else window.size)
            self.now = min(poll_at, self.ends[0])
            if self.now == poll_at:
                poll_at += 1.0
                self._poll(window)
                continue
            heapq.heappop(self.ends)
            self.answers.append(self.now)
            if isinstance(window, Window):
                window.on_answer(now=self.now, in_flight=len(self.ends) + self.waiting + 1)

    def rate(self, from_s: float, to_s: float) -> float:
        return sum(from_s <= answer < to_s for answer in self.answers) / (to_s - from_s)

    def _fill(self, size: int) -> None:
        self.waiting = max(0, size - len(self.ends))
        while self.waiting and len(self.ends) < self.knee(self.now):
            self.waiting -= 1
            heapq.heappush(self.ends, self.now + self.service_s * self.draw.uniform(0.7, 1.3))

    def _poll(self, window: Window | int) -> None:
        running = len(self.ends)
        self.queue_shares.append((self.now, self.waiting / max(1, running)))
        if isinstance(window, Window) and self.has_metrics:
            window.on_load(EngineLoad(running=running, waiting=self.waiting), in_flight=running + self.waiting)


@pytest.mark.parametrize("knee", [4, 16, 128, 512])
@pytest.mark.parametrize("service_s", [0.1, 2.0])
def test_with_metrics_it_finds_the_knee_in_half_a_minute_and_keeps_the_queue_short(knee: int, service_s: float) -> None:
    engine = SimulatedEngine(lambda _now: knee, service_s=service_s, has_metrics=True)
    best = SimulatedEngine(lambda _now: knee, service_s=service_s, has_metrics=True)

    engine.run(Window(), until_s=60.0)
    best.run(knee * 2, until_s=60.0)

    assert engine.rate(30, 60) >= 0.97 * best.rate(30, 60)
    late = [share for time, share in engine.queue_shares if time >= 15]
    assert sum(late) / len(late) <= max(0.1, 1.5 / knee)


@pytest.mark.parametrize(("before", "after"), [(32, 256), (256, 32), (16, 128)])
def test_it_follows_a_knee_that_moves(before: int, after: int) -> None:
    engine = SimulatedEngine(lambda now: before if now < 40 else after, service_s=0.5, has_metrics=True)
    best = SimulatedEngine(lambda _now: after, service_s=0.5, has_metrics=True)

    engine.run(Window(), until_s=100.0)
    best.run(after * 2, until_s=100.0)

    assert engine.rate(70, 100) >= 0.97 * best.rate(70, 100)
    late = [share for time, share in engine.queue_shares if time >= 70]
    assert sum(late) / len(late) <= 0.1


@pytest.mark.parametrize("knee", [16, 128])
def test_without_metrics_it_comes_close_to_the_knee_and_stays_in_bounds(knee: int) -> None:
    engine = SimulatedEngine(lambda _now: knee, service_s=0.3, has_metrics=False)
    best = SimulatedEngine(lambda _now: knee, service_s=0.3, has_metrics=False)
    window = Window()

    engine.run(window, until_s=60.0)
    best.run(knee * 2, until_s=60.0)

    assert engine.rate(30, 60) >= 0.95 * best.rate(30, 60)
    assert window.size <= 4 * max(knee, START_SIZE)


def test_a_burst_of_refusals_cuts_once() -> None:
    window = Window()
    window.size = 100

    cuts = [window.on_busy(sent_at=1.0, now=2.0 + number) for number in range(50)]

    assert cuts == [True] + [False] * 49
    assert window.size == 70
    assert window.on_busy(sent_at=2.5, now=60.0)
    assert window.size == 49


def test_it_stays_between_one_and_the_cap() -> None:
    window = Window(cap=5)
    assert window.size == 5
    for number in range(50):
        window.on_load(EngineLoad(running=5, waiting=0), in_flight=5)
        assert window.size <= 5
        window.on_busy(sent_at=number, now=number)
    assert window.size >= 1
    for _ in range(20):
        window.on_load(EngineLoad(running=1, waiting=50), in_flight=3)
    assert window.size == 1
    assert Window().cap == LARGEST_SIZE


def test_a_full_cache_and_preemptions_make_it_smaller() -> None:
    full, preempting = Window(), Window()

    full.on_load(EngineLoad(running=32, waiting=0, cache_use=0.97), in_flight=32)
    preempting.on_load(EngineLoad(running=32, waiting=0, preemptions=3), in_flight=32)
    assert preempting.size > 32
    preempting.on_load(EngineLoad(running=64, waiting=0, preemptions=4), in_flight=64)

    assert full.size == 28
    assert preempting.size == 57


def test_requests_that_do_not_reach_the_engine_do_not_make_it_grow() -> None:
    window = Window()

    for _ in range(10):
        window.on_load(EngineLoad(running=3, waiting=0), in_flight=window.size)

    assert window.size == START_SIZE


@pytest.mark.parametrize(("answers_per_request_s", "grows"), [(10.0, True), (0.0, False)])
def test_in_front_of_the_engine_it_grows_only_where_that_brings_answers_faster(
    answers_per_request_s: float, grows: bool
) -> None:
    """Either a long way to the engine (each request more brings as much more), or a busy process in front of it."""
    window = Window()
    now = 0.0
    for _ in range(40):
        window.on_load(EngineLoad(running=2, waiting=0), in_flight=window.size)
        rate = window.size * answers_per_request_s or 300.0
        for _ in range(int(rate * 0.25)):
            now += 1 / rate
            window.on_answer(now=now, in_flight=window.size)

    assert (window.size > 20 * START_SIZE) is grows
    assert window.size <= 2 * START_SIZE or grows


def test_an_idle_window_does_not_grow() -> None:
    window = Window()

    for _ in range(10):
        window.on_load(EngineLoad(running=5, waiting=0), in_flight=5)

    assert window.size == START_SIZE


def test_after_a_restart_it_feels_its_way_again() -> None:
    window = Window()
    window.size = 500

    window.on_restart()

    assert window.size == START_SIZE
