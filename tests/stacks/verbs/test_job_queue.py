"""Which of several jobs may start: room, money, order; and what they amount to together."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from schemas.errors import LeaseholdError, LimitError, NoCapacity, SpecError
from schemas.job import Limits
from schemas.status import Status
from stacks.run_folder import RunFolder
from stacks.verbs.job_queue import combine_exit_codes, find_hopeless, pick_next, refuse_shared_outputs
from stacks.verbs.job_turn import JobTurn
from tests.stacks.run_files import make_job, plan_for


def make_turn(name: str, limit_usd: float | None = None, *, output: str = "") -> JobTurn:
    turn = JobTurn(Path(f"{name}.yaml"))
    limits = Limits(max_usd=limit_usd, max_hours=1) if limit_usd is not None else Limits()
    turn.take_plan(plan_for(make_job(name=name, limits=limits, output=output)))
    return turn


def start(turn: JobTurn, usd: float = 0.0) -> None:
    turn.take_folder(RunFolder(Path("/runs") / turn.file.stem))
    turn.status = Status(run=turn.file.stem, job=turn.file.stem, state="in_progress", usd_so_far=usd)


def end(turn: JobTurn, usd: float) -> None:
    name = turn.file.stem
    turn.status = Status(
        run=name, job=name, state="completed", usd_so_far=usd, exit_code=0, ended_at="2026-11-24T10:00:00Z"
    )


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 10], 10),
        ([10, 8, 0], 8),
        ([11, 12, 130], 12),
        ([2, 10], 10),
        ([130, 4], 130),
        ([0, 99], 1),
    ],
)
def test_the_worst_code_stands_for_all(codes: list[int], expected: int) -> None:
    assert combine_exit_codes(codes) == expected


def test_so_many_at_a_time_and_in_order() -> None:
    turns = [make_turn(name) for name in "abc"]

    assert pick_next(turns, parallel=2, max_usd=None) is turns[0]
    start(turns[0])
    assert pick_next(turns, parallel=1, max_usd=None) is None
    assert pick_next(turns, parallel=2, max_usd=None) is turns[1]
    start(turns[1])
    assert pick_next(turns, parallel=2, max_usd=None) is None
    end(turns[0], 0.0)
    assert pick_next(turns, parallel=2, max_usd=None) is turns[2]


def test_a_job_waits_until_all_that_it_may_spend_is_left() -> None:
    turns = [make_turn("a", 5), make_turn("b", 5)]
    start(turns[0], usd=1.0)

    assert pick_next(turns, parallel=2, max_usd=9.99) is None
    assert pick_next(turns, parallel=2, max_usd=10) is turns[1]
    assert find_hopeless(turns, max_usd=9.99) is None
    end(turns[0], 4.0)
    assert pick_next(turns, parallel=2, max_usd=9.0) is turns[1]
    assert find_hopeless(turns, max_usd=9.0) is None


def test_a_job_that_the_rest_of_the_budget_cannot_pay_is_refused_once_nothing_runs() -> None:
    turns = [make_turn("a", 5), make_turn("b", 5), make_turn("c", 1)]
    start(turns[0])
    end(turns[0], 4.5)

    assert pick_next(turns, parallel=2, max_usd=9.0) is None
    found = find_hopeless(turns, max_usd=9.0)

    assert found is not None
    turn, error = found
    assert turn is turns[1]
    assert isinstance(error, LimitError)
    assert "5.00 USD and 4.50 of --max-usd are left" in str(error)
    turn.fail(error)
    assert pick_next(turns, parallel=2, max_usd=9.0) is turns[2]


def test_a_run_that_nobody_watches_any_more_counts_with_all_that_it_may_spend() -> None:
    turns = [make_turn("a", 5), make_turn("b", 5)]
    start(turns[0], usd=0.1)
    turns[0].fail(LeaseholdError("the run's life cycle process is dead"))

    assert pick_next(turns, parallel=2, max_usd=9.0) is None
    assert find_hopeless(turns, max_usd=9.0) is not None


def test_whatever_the_order_of_ends_the_budget_holds() -> None:
    """Random limits and spendings: what has been spent never exceeds the budget, and every job starts or is refused."""
    for seed in range(200):
        draw = random.Random(seed)
        turns = [make_turn(f"j{number}", draw.choice([0.5, 1, 2, 5])) for number in range(8)]
        budget = draw.uniform(1, 15)
        for _ in range(200):
            hopeless = find_hopeless(turns, max_usd=budget)
            if hopeless:
                hopeless[0].fail(hopeless[1])
            following = pick_next(turns, parallel=3, max_usd=budget)
            if following:
                start(following)
            running = [turn for turn in turns if turn.is_running]
            assert len(running) <= 3
            if running and draw.random() < 0.5:
                turn = draw.choice(running)
                end(turn, draw.uniform(0, turn.limit_usd))
        assert all(turn.is_ended for turn in turns)
        assert sum(turn.usd for turn in turns) <= budget


def test_two_jobs_that_write_to_one_folder_are_refused() -> None:
    with pytest.raises(SpecError, match="have the same output"):
        refuse_shared_outputs([make_turn("a", output="/results"), make_turn("b", output="/results")])

    refuse_shared_outputs([make_turn("a", output="/results/a"), make_turn("b", output="/results/b"), make_turn("c")])


def test_what_never_started_is_told_with_its_reason() -> None:
    turn = make_turn("a")
    turn.fail(NoCapacity("no offer is left"))

    result = turn.sum_up()

    assert (result.run, result.state, result.exit_code, result.message) == ("", "not started", 11, "no offer is left")


def test_a_run_that_has_not_said_anything_is_starting() -> None:
    turn = make_turn("a")
    turn.take_folder(RunFolder(Path("/runs/a-1")))

    assert (turn.sum_up().state, turn.is_running) == ("starting", True)


def test_machines_that_may_be_left_hold_back_all_that_their_job_may_spend() -> None:
    turns = [make_turn("a", 5), make_turn("b", 5)]
    start(turns[0])
    end(turns[0], 0.5)
    assert turns[0].status is not None
    turns[0].status = msgspec.structs.replace(turns[0].status, released="unverified")

    assert pick_next(turns, parallel=2, max_usd=9.0) is None
    assert find_hopeless(turns, max_usd=9.0) is not None
    turns[0].status = msgspec.structs.replace(turns[0].status, released="verified")
    assert pick_next(turns, parallel=2, max_usd=9.0) is turns[1]


def test_a_job_whose_file_was_changed_while_it_waited_is_not_what_was_agreed_to() -> None:
    turn = make_turn("a", 5, output="/results/a")
    assert turn.plan is not None
    again = msgspec.structs.replace(turn.plan, created_at=turn.plan.created_at + 600)

    turn.renew_plan(again)
    assert turn.plan is again
    for changed in (make_turn("a", 500, output="/results/a"), make_turn("a", 5, output="/results/b")):
        assert changed.plan is not None
        with pytest.raises(SpecError, match="changed while it waited"):
            turn.renew_plan(changed.plan)
        assert turn.plan is again
