"""A job that rents in an emulated account, as the tests of deaths and of the clouds' faults write it."""

from __future__ import annotations

from typing import Any

from tests.chaos.account import EmulatedAccount
from tests.journeys.workshop import Workshop


def write_rented_job(
    workshop: Workshop,
    account: EmulatedAccount,
    *,
    hours: float,
    lines: int = 60,
    replicas: int = 1,
    limits: dict[str, Any] | None = None,
) -> str:
    """The job's path; limits are added to those of money and time."""
    machines = {"replicas": replicas, "candidates": [account.candidate]}
    every = {"max_usd": 25, "max_hours": hours, **(limits or {})}
    job = workshop.write_job(lines=lines, template=account.template, machines=machines, limits=every)
    path = workshop.folder / "trial.jsonl"
    path.write_text(path.read_text().replace("tiny-chat", account.model))
    return str(job)
