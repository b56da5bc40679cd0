"""Stops the batch when the run's money is used up, by budget.json. Run by the dispatcher, beside the delivery."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from runtime.dispatcher.stop_signal import StopSignal
from schemas.budget import read_budget

LOOK_EVERY_S = 0.5


@contextlib.asynccontextmanager
async def stop_at_budget(path: str, stop: StopSignal) -> AsyncIterator[None]:
    """Watch the file at path ("" = there is none) for as long as the block runs."""
    if not path:
        yield
        return
    watching = asyncio.get_running_loop().create_task(_watch(Path(path), stop))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(path: Path, stop: StopSignal) -> None:
    # A file that is lost or torn meanwhile does not give the run more money.
    known = read_budget(path)
    while known is None or time.time() < known.ends_at:
        await asyncio.sleep(LOOK_EVERY_S)
        known = read_budget(path) or known
    stop.ask("budget_exceeded")
