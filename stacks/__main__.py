"""What Pulumi runs: reads the stack's configuration, makes or loads the plan, and declares the stack."""

from __future__ import annotations

import os
from pathlib import Path

import pulumi

from providers.lease.lease import LEASE_FILE
from schemas.errors import LeaseholdError, SpecError
from stacks.planning.plan import Plan, load_plan, save_plan
from stacks.planning.planning import draw_up_plan
from stacks.planning.prefix_claim import claim_output, keep_claim
from stacks.planning.staging import keep_input
from stacks.program import declare_stack
from stacks.releasing.release import is_proven
from stacks.run_folder import PROJECT, RunFolder, get_home, open_run
from stacks.stack import LIFECYCLE_MARK


def main() -> None:
    config = pulumi.Config()
    folder = open_run(pulumi.get_stack(), get_home())
    plan = _get_plan(config, folder)
    declare_stack(plan, folder, by_hand=LIFECYCLE_MARK not in os.environ)


def _get_plan(config: pulumi.Config, folder: RunFolder) -> Plan:
    """The saved plan; before there is one, a preview makes it in memory and an update saves it."""
    if folder.plan.exists():
        _refuse_ended(folder)
        return load_plan(folder.plan)
    job = PROJECT / Path(config.require("job"))
    plan = draw_up_plan(job, run=folder.run, line_limit=config.get_int("limit") or 0)
    if pulumi.runtime.is_dry_run():
        return plan
    claim = claim_output(plan)
    folder.make()
    keep_input(plan, folder)
    keep_claim(claim, folder)
    return save_plan(plan, folder.plan)


def _refuse_ended(folder: RunFolder) -> None:
    """A name works once: the plan and the results of a run that was released stay what they are."""
    if (folder.root / LEASE_FILE).exists() and is_proven(folder):
        raise SpecError(
            f"the run {folder.run} has ended and was released; its plan and results are in {folder.root}",
            fix="Choose another stack name: pulumi stack init ...",
        )


try:
    main()
except LeaseholdError as error:
    raise pulumi.RunError(str(error)) from None
