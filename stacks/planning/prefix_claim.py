"""Takes a job's S3 prefix for a new run, before anything is rented. Called when a run starts, and by its Pulumi program."""

from __future__ import annotations

from pathlib import Path

import msgspec

from runtime.objects.object_settings import ObjectAddress, is_object_address, parse_address
from runtime.objects.output_prefix import Claim, OutputPrefix, Owner, save_claim
from runtime.resuming.takeover import claim_prefix
from schemas.errors import SpecError
from schemas.job import Job
from schemas.shown_path import show_path
from stacks.planning.object_access import open_prefix
from stacks.planning.plan import Plan
from stacks.run_folder import RunFolder

_RESULTS = ("output.jsonl", "error.jsonl")


def refuse_same_object(job: Job) -> None:
    """Raise SpecError where the results would replace the input."""
    prefix = parse_address(job.output)
    names = [str(ObjectAddress(prefix.bucket, f"{prefix.key}/{name}".strip("/"))) for name in _RESULTS]
    if is_object_address(job.input) and str(parse_address(job.input)) in names:
        raise SpecError(
            "the results would be written over the input",
            where=show_path(job.source),
            fix="Give output: another prefix.",
        )


def refuse_taken_prefix(job: Job) -> None:
    """Raise SpecError for an output prefix that belongs to a run which has not ended, before work is put into a plan."""
    if is_object_address(job.output):
        prefix = open_prefix(job.output)
        _refuse_live(prefix, prefix.load_owner(), resumes="")


def claim_output(plan: Plan, prepared: Path | None = None) -> Claim | None:
    """Become the owner of the plan's prefix, with everything there that a resume needs; None for a local output.

    prepared: the folder with what was taken over from an earlier run, which may be the owner until now.
    """
    if not is_object_address(plan.job.output):
        return None
    prefix = open_prefix(plan.job.output)
    before = prefix.load_owner()
    _refuse_live(prefix, before, resumes=plan.resumes)
    return claim_prefix(
        prefix,
        before,
        run=plan.run,
        source=plan.staged or Path(plan.job.input),
        plan=msgspec.json.format(msgspec.json.encode(plan)),
        prepared=prepared,
    )


def keep_claim(claim: Claim | None, folder: RunFolder) -> None:
    """Tell the dispatcher and the life cycle of a run what it owns."""
    if claim is not None:
        save_claim(folder.root, claim)


def _refuse_live(prefix: OutputPrefix, found: tuple[Owner, str] | None, *, resumes: str) -> None:
    if found is None or found[0].ended is not None or found[0].run == resumes:
        return
    owner = found[0]
    raise SpecError(
        f"run {owner.run} on {owner.host} writes its results there and has not ended",
        where=str(prefix.address),
        fix=f"If that computer is lost: ./inv resume {prefix.address}/ goes on from what is there. Else choose another prefix.",
    )
