from __future__ import annotations

import asyncio
import random

import pytest

import runtime.dispatcher.request_queue
from runtime.dispatcher.flight import Request
from runtime.dispatcher.request_queue import SUSPECTS_IN_FLIGHT, RequestQueue


class Taker:
    def __init__(self) -> None:
        self.in_flight = self.suspects = 0
        self.is_alone = False


class Woken:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self) -> None:
        self.event.set()


def make_queue(
    done: bytes = bytes(5), *, order: list[int] | None = None, length: int = 10
) -> tuple[RequestQueue, Woken]:
    woken = Woken()
    queue = RequestQueue(bytearray(done), on_due=woken, length=lambda _line: length, order=order, draw=random.Random(1))
    return queue, woken


def take_all(queue: RequestQueue, taker: Taker, *, has_others: bool = False) -> list[int]:
    lines = []
    while (request := queue.take(taker, has_others=has_others)) is not None:
        lines.append(request.line)
    return lines


async def test_fresh_lines_come_in_order_without_those_that_are_done() -> None:
    queue, _ = make_queue(b"\0\1\0\1\0")

    assert take_all(queue, Taker()) == [0, 2, 4]
    assert queue.is_empty


async def test_another_order_is_kept_to() -> None:
    queue, _ = make_queue(b"\0\1\0\0", order=[3, 1, 0, 2])

    assert take_all(queue, Taker()) == [3, 0, 2]


async def test_what_is_put_back_comes_before_fresh_lines() -> None:
    queue, woken = make_queue()
    taker = Taker()
    first = queue.take(taker, has_others=False)
    assert first is not None

    queue.put_back(first)

    await asyncio.wait_for(woken.event.wait(), 1)
    assert take_all(queue, taker)[:2] == [0, 1]


async def test_a_delayed_request_comes_when_it_is_due_and_says_so() -> None:
    queue, woken = make_queue(bytes(1))
    taker = Taker()
    request = queue.take(taker, has_others=False)
    assert request is not None

    queue.put_back(request, delay_s=0.05)

    assert not queue.is_empty
    assert queue.take(taker, has_others=False) is None
    await asyncio.wait_for(woken.event.wait(), 1)
    assert queue.take(taker, has_others=False) is request


async def test_a_retry_avoids_the_replica_it_failed_on_while_there_are_others() -> None:
    queue, _ = make_queue(bytes(1))
    bad, good = Taker(), Taker()
    request = queue.take(bad, has_others=True)
    assert request is not None
    request.avoid = bad
    queue.put_back(request)

    assert queue.take(bad, has_others=True) is None
    assert queue.take(good, has_others=True) is request
    queue.put_back(request)
    assert queue.take(bad, has_others=False) is request


async def test_bytes_in_flight_are_bounded_and_the_waiting_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.dispatcher.request_queue, "BYTES_IN_FLIGHT", 25)
    queue, woken = make_queue()
    taken: list[Request] = []
    while (request := queue.take(Taker(), has_others=False)) is not None:
        queue.depart(request)
        taken.append(request)

    assert len(taken) == 3
    queue.arrive(taken[0])
    await asyncio.wait_for(woken.event.wait(), 1)
    assert queue.take(Taker(), has_others=False) is not None


async def test_few_suspects_are_in_flight_together() -> None:
    queue, _ = make_queue(bytes(1))
    taker = Taker()
    for line in range(SUSPECTS_IN_FLIGHT + 5):
        queue.put_back(Request(line + 100, deaths=1))

    taken = []
    while (request := queue.take(taker, has_others=False)) is not None:
        taker.suspects += request.deaths > 0
        taken.append(request.line)

    assert len(taken) == SUSPECTS_IN_FLIGHT + 1
    assert 0 in taken


async def test_who_was_there_at_two_deaths_goes_last_and_alone() -> None:
    queue, _ = make_queue(bytes(2))
    taker = Taker()
    queue.put_back(Request(50, deaths=2))

    assert take_all(queue, Taker()) == [0, 1, 50]
    queue.put_back(Request(51, deaths=2))
    taker.in_flight = 1
    assert queue.take(taker, has_others=False) is None
    taker.in_flight = 0
    alone = queue.take(taker, has_others=False)
    assert alone is not None
    assert alone.line == 51
    taker.is_alone = True
    queue.put_back(Request(60))
    assert queue.take(taker, has_others=False) is None


async def test_a_closed_queue_gives_nothing() -> None:
    queue, _ = make_queue()
    queue.put_back(Request(1), delay_s=0.01)

    queue.close()

    assert queue.take(Taker(), has_others=False) is None


async def test_delays_of_one_request_grow_up_to_the_cap() -> None:
    queue, _ = make_queue()
    request = Request(0)

    delays = [queue.retry_delay(request) for _ in range(50)]

    assert delays[0] == runtime.dispatcher.request_queue.RETRY_BASE_S
    assert max(delays) <= runtime.dispatcher.request_queue.RETRY_CAP_S
    assert max(delays) > 5
