"""Until when limits.max_usd lasts, kept in budget.json for the dispatcher. Called by the life cycle, and by Done under plain
Pulumi."""

from __future__ import annotations

import time
from collections.abc import Sequence

from schemas.budget import Budget, write_budget
from stacks.planning.plan import Plan
from stacks.run_folder import RunFolder
from stacks.runs.ledger import LedgerEntry, sum_usd

# What may pass between the stop of a batch and the end of its machines is paid from this.
BUDGET_MARGIN_S = 60.0
# While somebody reckons, the end is never nearer than this: what it takes for machines that may come must not end a run
# in which they do not.
_NEAREST_S = 5.0
_WRITE_EVERY_S = 1.0


class BudgetCare:
    """Writes the end of the money down whenever it has moved."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.written = 0.0
        self.has_limit = plan.job.limits.max_usd is not None

    def is_used_up(self, ledger: Sequence[LedgerEntry]) -> bool:
        """Whether the batch must stop now."""
        return is_budget_used_up(self.plan, ledger, time.time())

    def refresh(self, ledger: Sequence[LedgerEntry]) -> None:
        now = time.time()
        ends_at = find_budget_end(self.plan, ledger, now)
        if ends_at is None:
            return
        ends_at = max(ends_at, now + _NEAREST_S)
        if abs(ends_at - self.written) >= _WRITE_EVERY_S:
            write_budget(self.folder.budget, Budget(ends_at=ends_at))
            self.written = ends_at


def is_budget_used_up(plan: Plan, ledger: Sequence[LedgerEntry], now: float) -> bool:
    """Whether the machines that are there will have cost limits.max_usd before they can be given back."""
    limit = plan.job.limits.max_usd
    return limit is not None and sum_usd(ledger, now + BUDGET_MARGIN_S) >= limit


def find_budget_end(plan: Plan, ledger: Sequence[LedgerEntry], now: float) -> float | None:
    """When the money is used up to the margin, if nobody looks again until then; None without a limit or a price.

    A machine of the plan that is not there yet counts as there from now on, at the dearest price: whoever makes it may
    outlive whoever reckons.
    """
    limit = plan.job.limits.max_usd
    if limit is None:
        return None
    alive = [entry for entry in ledger if entry.gone_at is None]
    missing = {machine.index for machine in plan.machines} - {entry.index for entry in alive}
    dearest = max(choice.offer.price_usd_per_hour for choice in plan.choices)
    usd_per_hour = sum(entry.price_usd_per_hour for entry in alive) + dearest * len(missing)
    if usd_per_hour <= 0:
        return None
    return now + (limit - sum_usd(ledger, now)) / usd_per_hour * 3600 - BUDGET_MARGIN_S
