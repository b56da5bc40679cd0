"""The plan: how offers are ranked, what limits refuse, and that a saved plan is never changed."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from schemas.errors import LimitError, NoCapacity, SpecError
from schemas.job import Candidate, Limits
from stacks.planning.estimate import InputSummary
from stacks.planning.plan import Plan, load_plan, save_plan
from tests.stacks.planning.test_experience import make_measured
from tests.stacks.run_files import make_h100, make_job, make_offer, make_summary, plan_for

PODS = Candidate(cloud="runpod", gpu="H100", max_usd_per_hour=4.0)


def list_regions(plan: Plan) -> list[str]:
    return [choice.offer.region for choice in plan.choices]


def test_offers_are_tried_as_the_candidates_are_written() -> None:
    job = make_job(candidates=[PODS, Candidate(cloud="lambda", gpu="A10")])
    a10 = make_offer(cloud="lambda", gpu="A10", gpu_id="a10", region="texas", price_usd_per_hour=0.75)

    plan = plan_for(job, offers=[(PODS, [make_h100("A", 3), make_h100("B", 2)]), (job.machines.candidates[1], [a10])])

    assert list_regions(plan) == ["A", "B", "texas"]
    assert plan.clouds == ("runpod", "lambda")


def test_rank_price_puts_the_cheapest_first_whatever_its_candidate() -> None:
    job = make_job(candidates=[PODS, Candidate(cloud="lambda", gpu="A10")], rank="price")
    a10 = make_offer(cloud="lambda", gpu="A10", gpu_id="a10", region="texas", price_usd_per_hour=0.75)

    plan = plan_for(job, offers=[(PODS, [make_h100("A", 3), make_h100("B", 2)]), (job.machines.candidates[1], [a10])])

    assert list_regions(plan) == ["texas", "B", "A"]


@pytest.mark.parametrize("rank", ["order", "price"])
def test_what_is_sold_out_comes_last_however_cheap(rank: str) -> None:
    job = make_job(candidates=[PODS], rank=rank)

    plan = plan_for(job, make_h100("A", 1, available=False), make_h100("B", 2), make_h100("C", 3))

    assert list_regions(plan) == ["B", "C", "A"]


def test_an_offer_that_two_candidates_find_is_tried_once_as_the_first_one_wants_it() -> None:
    dear = Candidate(cloud="runpod", gpu="H100", image="mine:1")
    job = make_job(candidates=[dear, PODS])

    plan = plan_for(job, offers=[(dear, [make_h100("A"), make_h100("B")]), (PODS, [make_h100("B"), make_h100("C")])])

    assert [(each.offer.region, each.image) for each in plan.choices] == [("A", "mine:1"), ("B", "mine:1"), ("C", "")]


def test_offers_above_their_candidates_price_are_left_out() -> None:
    plan = plan_for(make_job(candidates=[PODS]), make_h100("A", 4.01), make_h100("B", 4.0))

    assert list_regions(plan) == ["B"]


def test_when_all_are_too_dear_the_nearest_prices_are_named() -> None:
    with pytest.raises(LimitError) as caught:
        plan_for(make_job(candidates=[PODS]), make_h100("A", 9.5), make_h100("B", 4.5), make_h100("C", 4.5))

    assert "nearest in USD: runpod H100 secure at 4.50, runpod H100 secure at 9.50" in str(caught.value)
    assert "max_usd_per_hour" in caught.value.fix
    assert caught.value.where == "/jobs/tickets.yaml"


def test_without_any_offer_there_is_no_capacity() -> None:
    with pytest.raises(NoCapacity, match="no cloud offers"):
        plan_for(make_job(candidates=[PODS]), offers=[(PODS, [])])


def test_a_low_estimate_over_max_usd_is_refused() -> None:
    free = plan_for(make_job(candidates=[PODS]), make_h100(), summary=make_summary(10_000_000)).estimate
    allowed, refused = (make_job(candidates=[PODS], limits=Limits(max_usd=free.low_usd - less)) for less in (0, 0.01))

    plan = plan_for(allowed, make_h100(), summary=make_summary(10_000_000))

    assert plan.estimate.low_usd == free.low_usd
    with pytest.raises(
        LimitError, match=rf"low estimate.*over limits\.max_usd \({free.low_usd - 0.01:.2f}\)"
    ) as caught:
        plan_for(refused, make_h100(), summary=make_summary(10_000_000))
    assert f"({free.low_hours:.2f} h of runpod H100 secure at 3.00 USD/h)" in caught.value.what


@pytest.mark.parametrize(
    ("max_hours", "window_s", "lifetime_s"), [(2.0, 86400, 7200), (48.0, 86400, 86400), (None, 3600, 3600)]
)
def test_a_lease_lasts_for_the_smaller_of_max_hours_and_the_window(
    max_hours: float | None, window_s: int, lifetime_s: float
) -> None:
    plan = plan_for(make_job(limits=Limits(max_hours=max_hours), completion_window_s=window_s))

    assert plan.lifetime_s == lifetime_s


def test_what_only_one_cloud_knows_goes_along_with_the_choice() -> None:
    candidate = Candidate(cloud="runpod", network_volume="v1", min_cuda="12.8", disk_gb=50)

    choice = plan_for(make_job(candidates=[candidate]), make_h100()).choices[0]

    assert (choice.settings, choice.disk_gb) == ({"network_volume": "v1", "min_cuda": "12.8"}, 50)


def test_every_machine_has_a_port_of_its_own() -> None:
    plan = plan_for(make_job(replicas=3), ports=[21000, 21001, 21002])

    assert [(each.index, each.engine_port) for each in plan.machines] == [(0, 21000), (1, 21001), (2, 21002)]


def test_a_saved_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = plan_for(
        make_job(candidates=[PODS], limits=Limits(max_usd=25)), make_h100("A"), make_h100("B"), line_limit=7
    )

    assert save_plan(plan, tmp_path / "plan.json") == plan
    assert load_plan(tmp_path / "plan.json") == plan


def test_the_first_saved_plan_stays_and_is_what_later_ones_get(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    first = save_plan(plan_for(make_job(), now=1.0), path)
    before = path.read_bytes()

    second = save_plan(plan_for(make_job(), now=2.0), path)

    assert second == first
    assert path.read_bytes() == before


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"version": 1}', b"\xff"])
def test_a_torn_plan_is_told_with_its_place(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(data)

    with pytest.raises(SpecError, match="cannot be read") as caught:
        load_plan(tmp_path / "plan.json")

    assert caught.value.where.endswith("plan.json")


def test_a_missing_plan_says_how_to_find_the_run(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no plan") as caught:
        load_plan(tmp_path / "plan.json")

    assert "./inv status" in caught.value.fix


def test_a_newer_plan_is_told_as_newer_even_if_its_fields_are_others(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    data = json.loads(msgspec.json.encode(plan_for(make_job())))
    for newer in ({**data, "version": 2}, {"version": 2, "renamed": True}):
        path.write_text(json.dumps(newer))

        with pytest.raises(SpecError, match="version 2"):
            load_plan(path)


def test_the_time_of_an_estimate_ends_with_the_lease_whichever_limit_ends_it() -> None:
    summary = InputSummary(requests=100_000, bytes=10**8, max_tokens_sum=10**8)
    plans = [
        plan_for(make_job(completion_window_s=7200, limits=Limits(max_hours=max_hours)), summary=summary)
        for max_hours in (None, 1.0, 24.0)
    ]

    assert [plan.estimate.high_hours for plan in plans] == [2.0, 1.0, 2.0]
    assert all("batch_expired" in plan.estimate.warnings[0] for plan in plans)


def test_runs_on_an_emulator_teach_only_plans_on_one() -> None:
    real = make_measured(boot_s=180.0)
    emulated = make_measured("r2", boot_s=2.0, is_emulated=True)

    plans = [
        plan_for(make_job(), make_h100(), measured=[real, emulated], emulated=clouds) for clouds in ((), ("runpod",))
    ]

    assert [plan.estimate.basis.boot_minutes.span.likely for plan in plans if plan.estimate.basis] == [3.0, 2 / 60]
    assert [plan.emulated for plan in plans] == [(), ("runpod",)]
