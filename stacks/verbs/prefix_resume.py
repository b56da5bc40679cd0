"""What `resume` and `retry` do with nothing but an S3 prefix: another computer's run goes on here, in a new run.

read owner and plan -> rebuild the earlier run's folder -> take its results over -> plan what is left -> claim, start
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from runtime.objects.object_settings import is_object_address
from runtime.objects.output_prefix import OutputPrefix, Owner
from runtime.objects.prefix_results import deliver_files
from runtime.resuming.adoption import Adoption, adopt_results
from runtime.resuming.takeover import claim_prefix, rebuild_run
from schemas.errors import SpecError
from schemas.job import LoadedJob, load_job
from stacks.planning.object_access import open_prefix
from stacks.planning.plan import Plan, load_plan
from stacks.planning.planning import plan_work
from stacks.planning.staging import StagedJob, fetch_input, stage_job
from stacks.policy.view import tell_refusal
from stacks.run_folder import get_home
from stacks.terminal.console import WORDS
from stacks.verbs.resuming import (
    Mode,
    ResumeOptions,
    describe_adoption,
    make_staging,
    resume_run,
    summarize_adoption,
    tell_differences,
)
from stacks.verbs.running import start_planned
from stacks.verbs.start import name_run, refuse_bad_targets, tell_notice


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What a prefix tells of the run that has owned it; its plan's job names what is in S3 instead of the other computer."""

    prefix: OutputPrefix
    owner: Owner
    plan: Plan


def resume_from(run: str, options: ResumeOptions) -> int:
    """Go on from a run of this computer, or from an s3:// prefix that another computer's run has written to."""
    resume = resume_prefix if is_object_address(run) else resume_run
    return resume(run, options)


def resume_prefix(address: str, options: ResumeOptions) -> int:
    """Start a run of what the prefix's run has left; as `resume_run`, and the new run owns the prefix from then on."""
    home = get_home()
    with make_staging(home) as staging, make_staging(home) as old:
        left = read_left(address, old)
        mode, limit = options.mode, options.choose_limit(left.plan)
        loaded = _load_job(options.job, left)
        refuse_bad_targets(loaded.job)
        name = name_run(options.new_run, loaded.job.name)
        _tell_owner(left.owner)
        staged = stage_job(loaded)
        adoption = _take_over(left, staged, old, staging, run=name, limit=limit, mode=mode)
        if adoption.left == 0:
            return _finish(left, adoption, staging, name)
        tell_differences(adoption, left.plan, loaded, limit)
        with tell_refusal(options.start.as_json):
            summary = summarize_adoption(adoption)
            plan = plan_work(staged.loaded, summary, run=name, line_limit=limit, on_notice=tell_notice)
        plan = msgspec.structs.replace(
            staged.put_back(plan), resumes=left.owner.run, taken_over=describe_adoption(adoption, mode)
        )
        return start_planned(plan, options.start, prepared=staging)


def read_left(address: str, folder: Path) -> Left:
    """The owner and its plan, which is put into folder; raises SpecError where no run has ever written."""
    prefix = open_prefix(address)
    found = prefix.load_owner()
    if found is None:
        raise SpecError("no run has written its results there", where=address, fix="Give the job's own `output:`.")
    owner = found[0]
    where = prefix.store.address(prefix.plan_key(owner))
    plan_file = prefix.store.read(prefix.plan_key(owner))
    if plan_file is None:
        raise SpecError("the plan of its run is gone", where=str(where), fix="Run the job anew, with another prefix.")
    path = folder / "plan.json"
    path.write_bytes(plan_file[0])
    plan = load_plan(path)
    job = msgspec.structs.replace(plan.job, input=owner.input.address, output=f"{prefix.address}/", source=str(where))
    return Left(prefix=prefix, owner=owner, plan=msgspec.structs.replace(plan, job=job))


def _load_job(job: str, left: Left) -> LoadedJob:
    """The job as it was planned there, or another file's, whose results go to this prefix all the same."""
    if not job:
        return LoadedJob(job=left.plan.job, template=left.plan.template)
    if not Path(job).is_file():
        raise SpecError("there is no such job file", where=job, fix="Name the job's file with --job.")
    loaded = load_job(Path(job))
    changed = msgspec.structs.replace(loaded.job, output=left.plan.job.output)
    return msgspec.structs.replace(loaded, job=changed)


def _take_over(
    left: Left, staged: StagedJob, old: Path, staging: Path, *, run: str, limit: int, mode: Mode
) -> Adoption:
    earlier = rebuild_run(
        left.prefix,
        left.owner,
        old,
        input_path=fetch_input(left.owner.input),
        endpoint=left.plan.job.endpoint,
        model=left.plan.template.model,
        line_limit=left.plan.line_limit,
    )
    return adopt_results(
        earlier,
        staging,
        run=run,
        input_path=Path(staged.loaded.job.input),
        endpoint=staged.loaded.job.endpoint,
        model=staged.loaded.template.model,
        line_limit=limit,
        with_failures=mode == "resume",
    )


def _tell_owner(owner: Owner) -> None:
    if owner.ended is None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(owner.taken_at))
        tell_notice(
            f"run {owner.run} on {owner.host} (since {since}) loses this prefix; if its machines may still be there: "
            f"./inv release {owner.run}, there or where Pulumi's state is the same, or ./inv reap"
        )


def _finish(left: Left, adoption: Adoption, staging: Path, name: str) -> int:
    """Nothing is left to send; where the computer was lost before the whole files were written, write them now."""
    prefix, owner = left.prefix, left.owner
    if owner.ended is None or not owner.ended.results:
        plan = msgspec.json.format(msgspec.json.encode(left.plan))
        claim = claim_prefix(prefix, prefix.load_owner(), run=name, source=owner.input, plan=plan, prepared=staging)
        deliver_files(prefix, claim.owner, staging / "output.jsonl.part", staging / "error.jsonl.part")
    WORDS.print(
        f"{prefix.address}: each of the {adoption.lines:,} requests has its result; output.jsonl is there, "
        "nothing is left, nothing was rented"
    )
    return 0
