"""Threads that want the same answer while its request waits for its turn share one request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from providers.clock import SystemClock
from providers.http.shared_read import Depart, SharedRead
from providers.lambda_cloud.lambda_cloud import REQUEST_INTERVAL_S
from schemas.errors import CloudError
from tests.providers.fake_api import make_instance, make_lambda, make_lambda_api, make_request, reply

pytestmark = pytest.mark.wire
WAIT_S = 10


class Request:
    """A request that waits for its turn, and then for its answer, until it is told."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.turn = threading.Semaphore(0)
        self.sent = 0

    def send(self, depart: Depart) -> int:
        self.asked.release()
        assert self.turn.acquire(timeout=WAIT_S)
        depart()
        self.sent += 1
        return self.sent


def count_joined(shared: SharedRead[int]) -> int:
    assert shared._waiting is not None
    return len(shared._waiting._condition._waiters)  # type: ignore[attr-defined]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_who_asks_before_the_request_is_sent_shares_its_answer() -> None:
    shared, request = SharedRead[int](), Request()

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(shared.fetch, request.send)
        assert request.asked.acquire(timeout=WAIT_S)
        others = [pool.submit(shared.fetch, request.send) for _ in range(3)]
        wait_until(lambda: count_joined(shared) == 3)
        request.turn.release()
        answers = [each.result(WAIT_S) for each in (first, *others)]

    assert answers == [1, 1, 1, 1]


def test_who_asks_after_the_request_was_sent_gets_one_of_their_own() -> None:
    shared = SharedRead[str]()
    inner: list[str] = []

    def send(depart: Depart) -> str:
        depart()
        # Sent, and not answered yet: this is another thread's moment.
        with ThreadPoolExecutor(1) as pool:
            inner.append(pool.submit(shared.fetch, lambda _: "fresh").result(WAIT_S))
        return "old"

    assert shared.fetch(send) == "old"
    assert inner == ["fresh"]


def test_a_failure_is_shared_and_the_next_one_asks_anew() -> None:
    shared = SharedRead[str]()

    def fail(_depart: Depart) -> str:
        raise CloudError("no answer")

    with pytest.raises(CloudError, match="no answer"):
        shared.fetch(fail)
    assert shared.fetch(lambda _: "well") == "well"


def test_a_launch_gets_its_turn_while_many_machines_boot(tmp_path: Path) -> None:
    """Each of 30 that look without pause would keep the account's only turn busy for half a minute."""
    pace, watchers = 5.0, 30
    api = make_lambda_api().on("GET /instances", reply(200, {"data": [make_instance()]}))
    api.on("GET /ssh-keys", reply(200, {"data": []})).on(
        "POST /ssh-keys", reply(200, {"data": {"id": "k", "name": "n"}})
    )
    api.on("POST /instance-operations/launch", reply(200, {"data": {"instance_ids": ["i1"]}}))
    settings = {"lambda_base_url": "http://127.0.0.1:1/api/v1", "emulator_pace": pace}
    clouds = [make_lambda(api, tmp_path, SystemClock(), **settings) for _ in range(watchers)]
    is_over = threading.Event()

    def watch(number: int) -> None:
        while not is_over.is_set():
            clouds[number].find("i1")

    with ThreadPoolExecutor(watchers) as pool:
        looking = [pool.submit(watch, number) for number in range(watchers)]
        try:
            is_over.wait(5 * REQUEST_INTERVAL_S / pace)
            launched = make_lambda(api, tmp_path, SystemClock(), **settings).launch(make_request("lambda"))
        finally:
            is_over.set()
        for each in looking:
            each.result(WAIT_S)

    assert launched == "i1"
