"""Which machines are replaced: attempts are bounded, offers that failed are left out, boots may cost only so much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.lease.intents import make_offer_key
from schemas.job import Candidate, Limits
from stacks.lifecycle.reconcile import MAX_ATTEMPTS, choose_replacements
from stacks.planning.plan import Plan
from stacks.runs.attempts import Attempt
from stacks.runs.ledger import LedgerEntry
from tests.stacks.run_files import START, make_h100, make_job, plan_for

A, B = make_h100("A"), make_h100("B")
KEY_A, KEY_B = make_offer_key(A), make_offer_key(B)
HOUR = 3600.0


def make_plan(boot_usd: float | None = None) -> Plan:
    job = make_job(candidates=[Candidate(cloud="runpod", gpu="H100")], limits=Limits(boot_usd=boot_usd), replicas=2)
    return plan_for(job, A, B)


def make_entry(index: int = 0, offer: str = KEY_A, **fields: Any) -> LedgerEntry:
    values = {"attempt": 1, "cloud": "runpod", "id": "p1", "name": "n", "price_usd_per_hour": 3.0, "created_at": START}
    return LedgerEntry(index=index, offer=offer, **(values | fields))


def choose(
    *ledger: LedgerEntry,
    plan: Plan | None = None,
    attempts: Mapping[int, Attempt] = {},
    failed: set[int] = frozenset(),  # type: ignore[assignment]
    died: set[int] = frozenset(),  # type: ignore[assignment]
    now: float = START,
) -> dict[int, Attempt]:
    return choose_replacements(
        plan or make_plan(), attempts=attempts, ledger=ledger, failed_to_boot=failed, died=died, now=now
    )


def test_nothing_failed_nothing_is_replaced() -> None:
    assert choose(make_entry()) == {}


def test_a_machine_that_did_not_boot_is_tried_on_another_offer() -> None:
    assert choose(make_entry(), failed={0}) == {0: Attempt(attempt=2, left_out=(KEY_A,))}


def test_what_is_left_out_is_what_this_index_had_last() -> None:
    ledger = [make_entry(1, KEY_B), make_entry(0, KEY_A), make_entry(1, KEY_A)]

    assert choose(*ledger, failed={1}, attempts={1: Attempt(attempt=2)}) == {1: Attempt(attempt=3, left_out=(KEY_A,))}


def test_offers_left_out_before_stay_left_out() -> None:
    before = {0: Attempt(attempt=2, left_out=(KEY_B,))}

    assert choose(make_entry(0, "runpod/other/1//C"), failed={0}, attempts=before) == {
        0: Attempt(attempt=3, left_out=tuple(sorted([KEY_B, "runpod/other/1//C"])))
    }


def test_a_machine_that_never_booted_is_not_tried_on_the_last_offer_again() -> None:
    before = {0: Attempt(attempt=2, left_out=(KEY_B,))}

    assert choose(make_entry(), failed={0}, attempts=before) == {}


def test_one_that_died_at_work_may_come_from_the_last_offer_again() -> None:
    before = {0: Attempt(attempt=2, left_out=(KEY_B,))}

    assert choose(make_entry(), died={0}, attempts=before) == {0: Attempt(attempt=3, left_out=(KEY_B,))}


def test_attempts_are_bounded() -> None:
    last = {0: Attempt(attempt=MAX_ATTEMPTS), 1: Attempt(attempt=MAX_ATTEMPTS - 1)}

    assert choose(make_entry(0), make_entry(1), died={0, 1}, attempts=last).keys() == {1}


def test_a_machine_of_which_nothing_is_known_leaves_nothing_out() -> None:
    assert choose(failed={0}) == {0: Attempt(attempt=2)}


def test_boots_that_led_to_nothing_may_cost_boot_usd_together() -> None:
    idle = [make_entry(0, gone_at=START + HOUR), make_entry(1, gone_at=START + HOUR)]

    assert choose(*idle, failed={0, 1}, plan=make_plan(boot_usd=6.01)).keys() == {0, 1}
    assert choose(*idle, failed={0, 1}, plan=make_plan(boot_usd=6.0)) == {}


def test_hours_of_work_are_no_boot_money() -> None:
    worked = make_entry(joined_at=START + 60, gone_at=START + 10 * HOUR)

    assert choose(worked, died={0}, plan=make_plan(boot_usd=1.0)).keys() == {0}


def test_a_machine_that_still_boots_costs_until_now() -> None:
    plan = make_plan(boot_usd=3.0)

    assert choose(make_entry(), failed={0}, plan=plan, now=START + 0.9 * HOUR)
    assert not choose(make_entry(), failed={0}, plan=plan, now=START + 1.1 * HOUR)
