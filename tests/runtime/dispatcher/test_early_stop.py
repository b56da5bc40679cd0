from __future__ import annotations

from runtime.dispatcher.early_stop import EarlyStop


async def test_enough_failures_of_one_kind_are_the_reason() -> None:
    stop = EarlyStop(has_success=False, limit=3)

    for number in range(3):
        assert not stop.reason.done()
        stop.on_failure(404, b"no model, request %d" % number)

    assert stop.reason.result() == "the first 3 requests all failed alike (status 404): no model, request 2"


async def test_one_answer_or_one_other_failure_ends_the_watch() -> None:
    answered, mixed = EarlyStop(has_success=False, limit=2), EarlyStop(has_success=False, limit=2)

    answered.on_failure(404, b"x")
    answered.on_answer()
    mixed.on_failure(404, b"x")
    mixed.on_failure(400, b"x")
    for stop in (answered, mixed):
        for _ in range(5):
            stop.on_failure(404, b"x")

    assert not answered.reason.done()
    assert not mixed.reason.done()


async def test_a_batch_that_had_answers_before_is_not_stopped() -> None:
    stop = EarlyStop(has_success=True, limit=1)

    stop.on_failure(404, b"x")

    assert not stop.reason.done()
