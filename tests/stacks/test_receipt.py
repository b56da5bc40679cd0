"""The receipt: each machine from its create to its absence, what it did meanwhile, and what the whole has cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.lease import mark_released, revoke_lease
from providers.proof import Proof
from schemas.status import Usage
from stacks.plan import Plan
from stacks.receipt import Receipt, load_receipt, make_receipt, save_receipt
from stacks.run_folder import RunFolder
from tests.providers.scripted_cloud import FakeClock
from tests.stacks.run_files import (
    START,
    join_machine,
    make_folder,
    make_job,
    make_lease,
    make_progress,
    make_record,
    note_machine,
    plan_for,
    write_progress,
)

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


@pytest.fixture
def plan() -> Plan:
    return plan_for(make_job())


def prove(folder: RunFolder, at: float) -> None:
    revoke_lease(folder.root, clock=FakeClock(), timeout_s=5)
    mark_released(folder.root, Proof(prefix="lh-", revoked_at=START, proven_at=at, clouds=()))


def test_a_run_without_machines_costs_nothing_and_is_released(folder: RunFolder, plan: Plan) -> None:
    receipt = make_receipt(folder, plan, START + HOUR)

    assert (receipt.usd, receipt.machines, receipt.released) == (0, (), True)
    assert receipt.usd_per_million_tokens is None


def test_a_machines_time_is_boot_work_and_idle(folder: RunFolder, plan: Plan) -> None:
    name = note_machine(folder, "m0", "created", "deleted", price_usd_per_hour=60.0)
    join_machine(folder, make_record(), at=START + 20)
    folder.machine(0).rename(folder.machines / f"{name}.left")
    write_progress(folder, make_progress("finished", first_sent_at=START + 21, ended_at=START + 50))

    line = make_receipt(folder, plan, START + HOUR).machines[0]

    assert (line.boot_s, line.work_s, line.idle_s, line.seconds) == (20, 30, 10, 60)
    assert (line.usd, line.proven_gone) == (1.0, True)


def test_a_machine_that_came_late_has_booted_longer_than_the_first(folder: RunFolder, plan: Plan) -> None:
    for index, joined in ((0, 10), (1, 40)):
        note_machine(folder, f"m{index}", "created", "deleted", index=index)
        join_machine(folder, make_record(index), at=START + joined)
    write_progress(folder, make_progress("finished", first_sent_at=START + 11, ended_at=START + 50))

    assert [line.boot_s for line in make_receipt(folder, plan, START + HOUR).machines] == [10, 40]


def test_times_that_contradict_each_other_give_no_negative_time(folder: RunFolder, plan: Plan) -> None:
    note_machine(folder, "m0", "created", "deleted")
    join_machine(folder, make_record(), at=START + 9999)
    write_progress(folder, make_progress("finished", first_sent_at=START - 5, ended_at=START - 99))

    line = make_receipt(folder, plan, START + HOUR).machines[0]

    assert min(line.boot_s, line.work_s, line.idle_s) >= 0
    assert line.boot_s + line.work_s + line.idle_s == line.seconds == 60


def test_a_machine_that_nobody_saw_go_ends_with_the_proof(folder: RunFolder, plan: Plan) -> None:
    make_lease(folder)
    note_machine(folder, "m0", "created", "unconfirmed", price_usd_per_hour=2.0)
    prove(folder, START + HOUR)

    receipt = make_receipt(folder, plan, START + 9 * HOUR)

    assert (receipt.usd, receipt.released, receipt.machines[0].proven_gone) == (2.0, True, True)


def test_without_a_proof_it_still_costs_and_the_receipt_says_so(folder: RunFolder, plan: Plan) -> None:
    make_lease(folder)
    note_machine(folder, "m0", "created", price_usd_per_hour=2.0)

    receipt = make_receipt(folder, plan, START + 9 * HOUR)

    assert (receipt.usd, receipt.released, receipt.machines[0].proven_gone) == (18.0, False, False)


def test_a_million_tokens_have_a_price(folder: RunFolder, plan: Plan) -> None:
    note_machine(folder, "m0", "created", "deleted", price_usd_per_hour=120.0)
    write_progress(folder, make_progress("finished", usage=Usage(input_tokens=300_000, output_tokens=100_000)))

    receipt = make_receipt(folder, plan, START + HOUR)

    assert (receipt.usd, receipt.usd_per_million_tokens) == (2.0, 5.0)
    assert receipt.estimated_usd == (plan.estimate.low_usd, plan.estimate.likely_usd, plan.estimate.high_usd)


def test_a_saved_receipt_comes_back_and_none_is_none(folder: RunFolder, plan: Plan) -> None:
    assert load_receipt(folder) is None
    note_machine(folder, "m0", "created", "deleted")
    receipt = make_receipt(folder, plan, START + HOUR)

    save_receipt(folder, receipt)

    loaded: Receipt | None = load_receipt(folder)
    assert loaded == receipt
