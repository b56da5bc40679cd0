from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.budget import Budget, read_budget, write_budget
from schemas.job import Candidate, Limits
from stacks.lifecycle import budget as budget_module
from stacks.lifecycle.budget import BUDGET_MARGIN_S, BudgetCare, find_budget_end, is_budget_used_up
from stacks.planning.plan import Plan
from stacks.run_folder import RunFolder
from stacks.runs.ledger import LedgerEntry, sum_usd
from tests.stacks.run_files import START, make_folder, make_h100, make_job, plan_for

PODS = Candidate(cloud="runpod", gpu="H100")


def make_priced_plan(
    *, max_usd: float | None = 25.0, replicas: int = 2, prices: tuple[float, ...] = (3.0, 4.0)
) -> Plan:
    job = make_job(candidates=[PODS], limits=Limits(max_usd=max_usd, max_hours=6), replicas=replicas)
    return plan_for(job, *(make_h100(f"US-{number}", price) for number, price in enumerate(prices)))


def make_entry(index: int, *, price: float = 3.0, since: float = START, gone_at: float | None = None) -> LedgerEntry:
    return LedgerEntry(
        index=index,
        attempt=1,
        cloud="runpod",
        id=f"pod{index}-{since}",
        name="",
        offer="",
        price_usd_per_hour=price,
        created_at=since,
        gone_at=gone_at,
    )


def test_with_all_machines_there_it_is_when_they_have_cost_the_limit_but_for_a_minute() -> None:
    ledger = [make_entry(0), make_entry(1, price=2.0)]

    assert find_budget_end(make_priced_plan(), ledger, START) == START + 5 * 3600 - BUDGET_MARGIN_S
    assert find_budget_end(make_priced_plan(), ledger, START + 3600) == START + 5 * 3600 - BUDGET_MARGIN_S


def test_a_machine_that_is_still_to_come_counts_at_the_dearest_price() -> None:
    one_to_come = find_budget_end(make_priced_plan(), [make_entry(0, price=1.0)], START)

    assert one_to_come == START + 5 * 3600 - BUDGET_MARGIN_S
    assert find_budget_end(make_priced_plan(replicas=1, prices=(5.0,)), [], START) == one_to_come


def test_what_is_gone_has_cost_its_money_and_costs_no_more() -> None:
    ledger = [make_entry(0, price=5.0, gone_at=START + 3600), make_entry(0, price=5.0, since=START + 3600)]

    assert find_budget_end(make_priced_plan(replicas=1), ledger, START + 3600) == START + 5 * 3600 - BUDGET_MARGIN_S


@pytest.mark.parametrize(("max_usd", "prices"), [(None, (3.0,)), (25.0, (0.0,))])
def test_without_a_limit_or_a_price_there_is_no_end(max_usd: float | None, prices: tuple[float, ...]) -> None:
    assert find_budget_end(make_priced_plan(max_usd=max_usd, prices=prices), [], START) is None


@given(
    prices=st.lists(st.floats(0.1, 40), min_size=2, max_size=2),
    ages=st.lists(st.floats(0, 4000), min_size=2, max_size=2),
    late_s=st.floats(0, 4000),
)
def test_whatever_comes_after_the_last_look_the_limit_is_kept(
    prices: list[float], ages: list[float], late_s: float
) -> None:
    plan = make_priced_plan(prices=tuple(prices))
    known = make_entry(0, price=prices[0], since=START - ages[0])
    ends_at = find_budget_end(plan, [known], START)
    assert ends_at is not None

    comes_later = make_entry(1, price=prices[1], since=START + late_s)

    spent = sum_usd([known, comes_later], max(ends_at + BUDGET_MARGIN_S, START))
    already = sum_usd([known], START)
    assert spent <= max(25.0, already) + 1e-6


def test_who_looks_again_and_again_ends_a_run_no_sooner_than_its_machines_have_used_up_the_money() -> None:
    plan, ledger = make_priced_plan(), [make_entry(0, price=3.0)]
    nearly = START + 25 / 3 * 3600 - BUDGET_MARGIN_S

    assert not is_budget_used_up(plan, ledger, nearly - 1)
    assert is_budget_used_up(plan, ledger, nearly + 1)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    moment = [START]
    monkeypatch.setattr(budget_module.time, "time", lambda: moment[0])
    yield moment


def test_the_file_follows_and_is_never_nearer_than_the_next_look(folder: RunFolder, now: list[float]) -> None:
    care = BudgetCare(folder, make_priced_plan(replicas=1, prices=(5.0,)))
    care.refresh(())
    assert read_budget(folder.budget) == Budget(ends_at=START + 5 * 3600 - BUDGET_MARGIN_S)

    now[0] += 100
    care.refresh(())
    assert read_budget(folder.budget) == Budget(ends_at=now[0] + 5 * 3600 - BUDGET_MARGIN_S)

    limits = Limits(max_usd=1.0, max_hours=6)
    care.plan = msgspec.structs.replace(care.plan, job=make_job(candidates=[PODS], limits=limits))
    care.plan = msgspec.structs.replace(care.plan, choices=make_priced_plan(max_usd=1e6, prices=(5000.0,)).choices)
    care.refresh(())
    assert read_budget(folder.budget) == Budget(ends_at=now[0] + 5)


def test_a_torn_file_or_one_of_another_version_tells_nothing(folder: RunFolder) -> None:
    assert read_budget(folder.budget) is None
    write_budget(folder.budget, Budget(ends_at=1.0))
    whole = folder.budget.read_bytes()
    for data in (whole[:-4], whole.replace(b":1", b":2", 1), b"[]"):
        folder.budget.write_bytes(data)
        assert read_budget(folder.budget) is None
