"""Starts a run: names it, draws up its plan, makes its folder, and hands over to the life cycle. Called by `run` and `demo`."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from runtime.objects.object_settings import is_object_address
from schemas.errors import LeaseholdError, SpecError
from schemas.job import Job, load_job
from schemas.shown_path import show_path
from stacks.lifecycle.lifecycle import start_lifecycle
from stacks.notifications.target_check import check_targets
from stacks.planning.plan import Plan, load_plan, save_plan
from stacks.planning.planning import draw_up_plan
from stacks.planning.prefix_claim import claim_output, keep_claim
from stacks.planning.staging import keep_input
from stacks.policy.gate import load_policy_in_force
from stacks.run_folder import RunFolder, get_home, list_runs, open_run, prepare_home
from stacks.runs.run_processes import is_lifecycle_alive
from stacks.stack import warn_of_own_passphrase
from stacks.terminal.console import WORDS

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_RUN_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,79}")


def make_run_id(job: str) -> str:
    """`<job>-<yymmdd>-<6 characters>`."""
    source = random.SystemRandom()
    return f"{job}-{time.strftime('%y%m%d')}-{''.join(source.choices(_LETTERS, k=6))}"


def prepare_run(
    job_file: Path,
    *,
    run: str = "",
    line_limit: int = 0,
    will_write: bool = True,
    on_notice: Callable[[str], None] | None = None,
) -> Plan:
    """The plan of a new run, nothing written yet; raises SpecError for a run id that is taken or cannot be one.

    will_write False: only to look at, without a right to write results. on_notice: instead of telling the person.
    """
    refuse_missing_file(job_file)
    if run:
        # Before any cloud is asked: what is taken now stays taken.
        name_run(run, "")
    job = load_job(job_file).job
    refuse_bad_targets(job)
    if will_write:
        tell_of_same_output(job, on_notice or tell_notice)
    plan = draw_up_plan(
        job_file,
        run=run or make_run_id("run"),
        line_limit=line_limit,
        on_notice=on_notice or tell_notice,
        will_write=will_write,
    )
    return msgspec.structs.replace(plan, run=name_run(run, plan.job.name))


def refuse_missing_file(job_file: Path) -> None:
    """Raise SpecError for a folder, which may hold jobs, and for what is not there."""
    if job_file.is_dir():
        jobs = sorted(each.name for each in job_file.glob("*.yaml"))
        fix = f"Name a file, such as {job_file / jobs[0]}." if jobs else "Name a job's file; ./inv new prints one."
        raise SpecError("this is a folder, not a job file", where=str(job_file), fix=fix)
    if not job_file.is_file():
        fix = f"Check the path, or start from an example: ./inv new > {shlex.quote(str(job_file))}"
        raise SpecError("there is no such job file", where=str(job_file), fix=fix)


def refuse_bad_targets(job: Job) -> None:
    """Raise SpecError when somebody is to be told at an address that is none; what is not set is only said."""
    checked = check_targets(os.environ, job=job, policy=load_policy_in_force(os.environ))
    checked.raise_if_bad()
    for warning in checked.warnings:
        tell_notice(str(warning))


def tell_of_same_output(job: Job, tell: Callable[[str], None]) -> None:
    """Say which runs at work will write to the job's folder too; a prefix in S3 is refused by its owner's record."""
    if not job.output or is_object_address(job.output):
        return
    for folder in list_runs(get_home()):
        if not is_lifecycle_alive(folder):
            continue
        with contextlib.suppress(LeaseholdError, OSError):  # another version's plan, or one that is not written yet
            if load_plan(folder.plan).job.output == job.output:
                tell(f"{folder.run} is at work and writes to {show_path(job.output)} too; what ends last stays there")


def name_run(given: str, job: str) -> str:
    """The id of a new run of `job`: the given one, else a new one; raises SpecError if it is taken or cannot be one."""
    name = given or make_run_id(job)
    if _RUN_ID.fullmatch(name) is None:
        raise SpecError(f"{name!r} cannot be a run's id", fix="Letters, digits, '-', '_' and '.', at most 80.")
    folder = open_run(name, get_home())
    if folder.root.exists():
        raise SpecError(
            f"there is a run {name} already", where=str(folder.root), fix="Leave the id out, or give another one."
        )
    return name


def tell_notice(notice: str) -> None:
    """A sentence that the person should read before the plan."""
    WORDS.print(notice, style="yellow")


def launch_run(
    plan: Plan, environment: Mapping[str, str], *, keep: bool, detached: bool, prepared: Path | None = None
) -> RunFolder:
    """Write the plan down and start the life cycle; from here on the run goes on by itself.

    prepared: a folder beside the runs that becomes this run's, with what was taken over from an earlier one.
    """
    home = get_home()
    prepare_home(home)
    folder = open_run(plan.run, home)
    if warning := warn_of_own_passphrase(environment):
        tell_notice(warning)
    claim = claim_output(plan, prepared)
    try:
        if prepared is None:
            folder.root.mkdir(mode=0o700)
        else:
            prepared.rename(folder.root)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise SpecError(
            f"there is a run {plan.run} already", where=str(folder.root), fix="Give it another id."
        ) from error
    folder.make()
    keep_input(plan, folder)
    keep_claim(claim, folder)
    save_plan(plan, folder.plan)
    start_lifecycle(folder, environment, keep=keep, detached=detached)
    return folder
