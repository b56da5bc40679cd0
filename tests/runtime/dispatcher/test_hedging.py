from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from runtime.dispatcher.flight import Request
from runtime.dispatcher.hedging import choose_hedges
from runtime.dispatcher.latency import Latencies


def make_replica(index: int, *, median_s: float, room: int = 4, state: str = "ready") -> Any:
    latencies = Latencies()
    if median_s:
        latencies.add(median_s)
    window = SimpleNamespace(size=room)
    values = {"index": index, "state": state, "window": window, "latencies": latencies, "in_flight": 0}
    return SimpleNamespace(**values, flights=set(), is_alone=False)


class Flight:
    def __init__(self, replica: Any, sent_at: float, request: Request | None = None) -> None:
        self.replica, self.sent_at = replica, sent_at
        self.request = request or Request(0)
        self.request.flights.append(self)  # type: ignore[arg-type]
        replica.flights.add(self)


def test_a_fast_replica_takes_what_a_slow_one_will_not_have_done_before_it() -> None:
    slow, fast = make_replica(0, median_s=10.0), make_replica(1, median_s=1.0)
    early, late = Flight(slow, sent_at=99.0), Flight(slow, sent_at=90.5)

    assert choose_hedges([slow, fast], now=100.0) == [(early, fast)]
    assert late.request.flights == [late]


def test_what_is_long_overdue_goes_to_any_idle_replica() -> None:
    one, other = make_replica(0, median_s=1.0), make_replica(1, median_s=1.0)
    overdue = Flight(one, sent_at=90.0)

    assert choose_hedges([one, other], now=100.0) == [(overdue, other)]


def test_nobody_gets_a_third_try_and_no_replica_more_than_its_room() -> None:
    slow, fast = make_replica(0, median_s=10.0), make_replica(1, median_s=1.0, room=2)
    flights = [Flight(slow, sent_at=50.0 + number) for number in range(5)]
    twin = Request(7)
    Flight(slow, 1.0, twin)
    Flight(fast, 1.0, twin)

    assert choose_hedges([slow, fast], now=100.0) == [(flights[0], fast), (flights[1], fast)]


def test_a_replica_that_is_not_ready_not_known_or_busy_with_a_suspect_helps_nobody() -> None:
    slow = make_replica(0, median_s=10.0)
    Flight(slow, sent_at=1.0)
    others = [make_replica(1, median_s=1.0, state="down"), make_replica(2, median_s=0.0), make_replica(3, median_s=1.0)]
    others[2].is_alone = True

    assert choose_hedges([slow, *others], now=100.0) == []


def test_what_may_kill_engines_gets_no_twin() -> None:
    slow, fast = make_replica(0, median_s=10.0), make_replica(1, median_s=1.0)
    Flight(slow, 1.0, Request(3, deaths=1))

    assert choose_hedges([slow, fast], now=100.0) == []
