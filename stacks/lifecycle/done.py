"""Waits for the end of the batch under plain `pulumi up`: `python -m stacks.lifecycle.done FOLDER`, run by the Done resource.

At the end it terminates the machines, since they cost money; the lease and the proof are left to `pulumi destroy`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from providers.lease.lease import is_open
from schemas.errors import CancelledError, LeaseholdError, MachineFailed
from schemas.failure import read_failures
from stacks.lifecycle.budget import BudgetCare
from stacks.lifecycle.machine_care import give_back_machines
from stacks.planning.plan import Plan, load_plan
from stacks.run_folder import RunFolder
from stacks.runs.collecting import collect_records, collect_results
from stacks.runs.ledger import read_joined, read_ledger
from stacks.runs.outcome import Outcome, judge_progress
from stacks.runs.receipt import make_receipt, save_receipt
from stacks.runs.run_status import read_progress
from stacks.terminal.count_words import count_things

_POLL_S = 0.5
_STRAGGLERS_S = 30.0


def wait_until_done(folder: RunFolder, plan: Plan) -> Outcome:
    """The batch's outcome; raises MachineFailed once min_replicas can no longer join, CancelledError without a lease."""
    started, budget = time.monotonic(), BudgetCare(folder, plan)
    patience_s = plan.job.limits.boot_minutes * 60 + plan.template.spec.engine.ready_timeout_s + 120
    while True:
        progress = read_progress(folder)
        outcome = judge_progress(progress) if progress else None
        if outcome is not None:
            return outcome
        if not is_open(folder.root):
            raise CancelledError("the lease was revoked before the batch was done", where=folder.run)
        if budget.has_limit:
            budget.refresh(read_ledger(folder))
        _refuse_too_few(folder, plan, time.monotonic() - started > patience_s)
        time.sleep(_POLL_S)


def _refuse_too_few(folder: RunFolder, plan: Plan, is_late: bool) -> None:
    failures = read_failures(folder.failures)
    joined = {record.index for record in read_joined(folder)}
    failed = {failure.index for failure in failures} - joined
    can_join = len(plan.machines) - len(failed)
    wanted = plan.job.machines.min_replicas
    if can_join >= wanted and not (is_late and len(joined) < wanted):
        return
    reason = failures[-1].message if failures else "no engine became healthy in time"
    raise MachineFailed(
        f"{count_things(len(joined), 'machine')} joined and at least {wanted} must: {reason}",
        where=folder.run,
        fix="pulumi destroy gives back what is there.",
    )


def wait_for_stragglers(folder: RunFolder, plan: Plan) -> None:
    """Give machines that are about to join a moment: taken away in mid-boot, they would make `pulumi up` fail."""
    deadline = time.monotonic() + _STRAGGLERS_S
    while time.monotonic() < deadline:
        settled = {record.index for record in read_joined(folder)}
        settled |= {failure.index for failure in read_failures(folder.failures)}
        if len(settled) >= len(plan.machines):
            return
        time.sleep(_POLL_S)


def keep_results(folder: RunFolder, plan: Plan) -> None:
    """What a life cycle leaves at its end: the results where the job wants them, and the receipt. No machine waits for it."""
    try:
        # First: results that cannot be brought to S3 end this here.
        save_receipt(folder, make_receipt(folder, plan, time.time()))
        collect_results(folder, plan.job)
        collect_records(folder, plan.job)
    except OSError as error:
        sys.stderr.write(f"the results are in {folder.root}; they could not be copied: {error}\n")


def main(arguments: list[str]) -> int:
    folder = RunFolder(Path(arguments[0]))
    try:
        plan = load_plan(folder.plan)
        outcome = wait_until_done(folder, plan)
        wait_for_stragglers(folder, plan)
        give_back_machines(folder, [entry for entry in read_ledger(folder) if entry.gone_at is None])
        keep_results(folder, plan)
    except LeaseholdError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{outcome.state}: {outcome.message}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
