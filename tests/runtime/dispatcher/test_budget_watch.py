from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from runtime.dispatcher import budget_watch
from runtime.dispatcher.budget_watch import stop_at_budget
from runtime.dispatcher.stop_signal import StopSignal
from schemas.budget import Budget, write_budget


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_watch, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budget.json"


async def is_stopped(stop: StopSignal, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(stop.asked.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


async def test_the_batch_is_stopped_for_its_money_when_the_file_says_so(path: Path) -> None:
    stop = StopSignal()
    write_budget(path, Budget(ends_at=time.time() + 60))
    async with stop_at_budget(str(path), stop):
        assert not await is_stopped(stop, 0.1)
        write_budget(path, Budget(ends_at=time.time() - 1))
        assert await is_stopped(stop, 5)
    assert stop.reason == "budget_exceeded"


async def test_an_end_that_moves_away_in_time_stops_nothing(path: Path) -> None:
    stop = StopSignal()
    write_budget(path, Budget(ends_at=time.time() + 0.3))
    async with stop_at_budget(str(path), stop):
        write_budget(path, Budget(ends_at=time.time() + 60))
        assert not await is_stopped(stop, 0.5)


async def test_a_file_that_is_lost_or_torn_gives_no_more_money(path: Path) -> None:
    stop = StopSignal()
    write_budget(path, Budget(ends_at=time.time() + 0.3))
    async with stop_at_budget(str(path), stop):
        await asyncio.sleep(0.05)
        path.write_bytes(b"{")
        assert await is_stopped(stop, 5)


@pytest.mark.parametrize("name", ["", "budget.json"])
async def test_without_a_file_nothing_is_stopped(tmp_path: Path, name: str) -> None:
    stop = StopSignal()
    async with stop_at_budget(str(tmp_path / name) if name else "", stop):
        assert not await is_stopped(stop, 0.1)
