"""The receipt: each machine from its create to its absence, what it did meanwhile, and what the whole has cost."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from providers.lease.intents import make_offer_key
from providers.lease.lease import mark_released, revoke_lease
from providers.lease.proof import Proof
from schemas.job import Candidate
from schemas.status import Usage
from schemas.version import LeaseholdVersion
from stacks.planning.history import load_history
from stacks.planning.plan import Plan, TakenOver
from stacks.run_folder import RunFolder
from stacks.runs.receipt import Receipt, load_receipt, make_receipt, save_receipt
from tests.providers.scripted_cloud import FakeClock
from tests.stacks.run_files import (
    START,
    join_machine,
    make_folder,
    make_h100,
    make_job,
    make_lease,
    make_offer,
    make_progress,
    make_record,
    note_machine,
    plan_for,
    write_progress,
)

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path / "runs")


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


def test_a_receipt_says_which_leasehold_decided(folder: RunFolder, plan: Plan) -> None:
    version = LeaseholdVersion(version="0.0.7", commit="c0ffee")

    assert make_receipt(folder, plan, START).leasehold is None
    assert make_receipt(folder, msgspec.structs.replace(plan, leasehold=version), START).leasehold == version


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


def test_a_machine_is_named_with_its_gpu_and_region(folder: RunFolder) -> None:
    offer = make_h100("US-KS-2", count=2)
    plan = plan_for(make_job(candidates=[Candidate(cloud="runpod")]), offer)
    note_machine(folder, "m0", "created", "deleted", offer=make_offer_key(offer))

    line = make_receipt(folder, plan, START + HOUR).machines[0]

    assert (line.gpu, line.count, line.region) == ("H100", 2, "US-KS-2")


def test_boot_work_and_idle_add_up_over_the_machines(folder: RunFolder, plan: Plan) -> None:
    for index, joined in ((0, 10), (1, 40)):
        note_machine(folder, f"m{index}", "created", "deleted", index=index)
        join_machine(folder, make_record(index), at=START + joined)
    write_progress(folder, make_progress("finished", first_sent_at=START + 11, ended_at=START + 50))

    receipt = make_receipt(folder, plan, START + HOUR)

    assert (receipt.boot_s, receipt.work_s, receipt.idle_s) == (50, 50, 20)


def test_the_estimate_is_held_against_what_came(folder: RunFolder) -> None:
    priced = make_offer(price_usd_per_hour=60.0)
    plan = plan_for(make_job(candidates=[Candidate(cloud="local", price_usd_per_hour=60.0)]), priced)
    note_machine(folder, "m0", "created", "deleted", price_usd_per_hour=60.0)
    write_progress(folder, make_progress("finished", usage=Usage(input_tokens=20_000, output_tokens=1500)))

    check = make_receipt(folder, plan, START + HOUR).check

    assert check is not None and check.prompt_tokens is not None and check.output_tokens is not None
    assert (check.usd.actual, check.hours.actual) == (1.0, round(60 / 3600, 4))
    assert check.usd.expected.likely == plan.estimate.likely_usd
    assert check.usd.error == round(1.0 / plan.estimate.likely_usd - 1, 4)
    assert (check.prompt_tokens.expected.likely, check.prompt_tokens.error) == (10_000, 1.0)
    assert (check.output_tokens.expected.likely, check.output_tokens.error) == (3000, -0.5)


def test_a_run_without_machines_is_held_against_nothing(folder: RunFolder, plan: Plan) -> None:
    receipt = make_receipt(folder, plan, START)

    assert (receipt.check, receipt.measured) == (None, None)


def test_what_the_run_measured_is_what_the_next_plan_learns_from(folder: RunFolder, plan: Plan) -> None:
    note_machine(folder, "m0", "created", "deleted")
    join_machine(folder, make_record(), at=START + 10)
    usage = Usage(input_tokens=5000, output_tokens=2500)
    progress = make_progress("finished", total=100, completed=50, failed=50, usage=usage, ended_at=START + 50)
    write_progress(folder, progress)

    save_receipt(folder, make_receipt(folder, plan, START + HOUR))

    (measured,) = load_history(folder.root.parent.parent)
    assert not measured.is_emulated
    assert (measured.template, measured.model, measured.gpu) == ("tiny@1.0.0", "builtin:tiny-chat", "cpu")
    assert (measured.requests, measured.bytes, measured.max_output_tokens) == (50, 20_000, 2500)
    assert (measured.prompt_tokens, measured.output_tokens) == (5000, 2500)
    assert (measured.cloud, measured.boot_s, measured.work_s, measured.machines) == ("local", 10, 40, 1)
    learned = plan_for(make_job(), measured=[measured]).estimate.basis
    assert learned is not None
    assert {each.source for each in (learned.prompt_tokens, learned.output_tokens, learned.tokens_per_s)} == {
        "receipts"
    }
    assert learned.prompt_tokens.span.likely == pytest.approx(10_000)


def test_machines_of_two_kinds_measure_nothing(folder: RunFolder) -> None:
    offers = make_h100("US-1"), make_h100("US-1", gpu="A10", gpu_id="a10")
    plan = plan_for(make_job(candidates=[Candidate(cloud="runpod")], replicas=2), *offers)
    for index, offer in enumerate(offers):
        note_machine(folder, f"m{index}", "created", "deleted", index=index, offer=make_offer_key(offer))
        join_machine(folder, make_record(index), at=START + 10)
    write_progress(folder, make_progress("finished", ended_at=START + 50))

    assert make_receipt(folder, plan, START + HOUR).measured is None


def test_machines_of_one_kind_on_two_clouds_measure_their_speed_and_no_boot(folder: RunFolder) -> None:
    offers = make_h100("US-1"), make_h100("us-east-1", cloud="lambda")
    candidates = [Candidate(cloud="runpod"), Candidate(cloud="lambda")]
    plan = plan_for(make_job(candidates=candidates, replicas=2), *offers)
    for index, offer in enumerate(offers):
        note_machine(
            folder, f"m{index}", "created", "deleted", index=index, cloud=offer.cloud, offer=make_offer_key(offer)
        )
        join_machine(folder, make_record(index), at=START + 10)
    write_progress(folder, make_progress("finished", total=100, completed=100, ended_at=START + 50))

    measured = make_receipt(folder, plan, START + HOUR).measured

    assert measured is not None
    assert (measured.machines, measured.cloud, measured.boot_s) == (2, "", None)


def test_what_an_emulator_has_shown_is_marked(folder: RunFolder, plan: Plan) -> None:
    note_machine(folder, "m0", "created", "deleted")
    join_machine(folder, make_record(), at=START + 10)
    write_progress(folder, make_progress("finished", total=100, completed=100, ended_at=START + 50))

    receipt = make_receipt(folder, msgspec.structs.replace(plan, emulated=("local",)), START + HOUR)

    assert receipt.measured is not None
    assert receipt.measured.is_emulated


def test_what_was_taken_over_from_an_earlier_run_is_not_measured_again(folder: RunFolder, plan: Plan) -> None:
    taken = TakenOver(mode="resume", answers=40, failures=0, usage=Usage(input_tokens=4000, output_tokens=400))
    resumed = msgspec.structs.replace(plan, taken_over=taken)
    note_machine(folder, "m0", "created", "deleted")
    join_machine(folder, make_record(), at=START + 10)
    usage = Usage(input_tokens=5000, output_tokens=500)
    write_progress(folder, make_progress("finished", total=140, completed=140, usage=usage, ended_at=START + 50))

    measured = make_receipt(folder, resumed, START + HOUR).measured

    assert measured is not None
    assert (measured.requests, measured.prompt_tokens, measured.output_tokens) == (100, 1000, 100)


def test_requests_that_never_had_their_turn_are_not_failed(folder: RunFolder, plan: Plan) -> None:
    codes = ["batch_cancelled", "invalid_request", "batch_cancelled", "budget_exceeded"]
    lines = [{"custom_id": str(number), "error": {"code": code}} for number, code in enumerate(codes)]
    folder.errors.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"error": None}]) + '{"torn')
    write_progress(folder, make_progress("stopped", completed=6, failed=4))

    receipt = make_receipt(folder, plan, START)

    assert (receipt.requests_completed, receipt.requests_failed, receipt.requests_not_run) == (6, 1, 3)


def test_an_older_receipt_is_read_all_the_same(folder: RunFolder) -> None:
    old = {
        "version": 1, "run": "r", "job": "j", "usd": 1.0, "estimated_usd": [1, 2, 3], "requests_completed": 1,
        "requests_failed": 0, "usage": {}, "released": True, "machines": [{
            "index": 0, "cloud": "runpod", "id": "p", "name": "n", "offer": "runpod/H100/1", "seconds": 1, "boot_s": 1,
            "work_s": 0, "idle_s": 0, "usd_per_hour": 1, "usd": 1, "proven_gone": True,
        }],
    }  # fmt: skip
    folder.receipt.write_text(json.dumps(old))

    loaded = load_receipt(folder)

    assert loaded is not None and (loaded.machines[0].gpu, loaded.check) == ("", None)


def test_a_saved_receipt_comes_back_and_none_is_none(folder: RunFolder, plan: Plan) -> None:
    assert load_receipt(folder) is None
    note_machine(folder, "m0", "created", "deleted")
    receipt = make_receipt(folder, plan, START + HOUR)

    save_receipt(folder, receipt)

    loaded: Receipt | None = load_receipt(folder)
    assert loaded == receipt
