"""What `resume` and `retry` do: a new run of what an earlier one has not finished; its results are the whole.

find the earlier run -> take its results over into a new folder -> plan what is left -> start, as `run` does
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from runtime.objects.object_settings import is_object_address
from runtime.resuming.adoption import Adoption, EarlierRun, adopt_results
from schemas.errors import ReleaseError, SpecError
from schemas.job import LoadedJob, load_job
from stacks.planning.estimate import InputSummary
from stacks.planning.plan import Plan, TakenOver, load_plan
from stacks.planning.planning import plan_work
from stacks.planning.staging import stage_job
from stacks.policy.view import tell_refusal
from stacks.releasing.release import is_proven
from stacks.run_folder import RunFolder, find_run, get_home, list_runs, prepare_home
from stacks.runs.run_processes import is_lifecycle_alive
from stacks.runs.run_status import is_over, read_status
from stacks.terminal.console import WORDS, print_data
from stacks.verbs.running import start_planned
from stacks.verbs.start import name_run, refuse_bad_targets, tell_notice
from stacks.verbs.start_options import StartOptions

AS_BEFORE = -1
Mode = Literal["resume", "retry"]


class ResumeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """job: another job file than the earlier run's, with the same requests. `retry` also sends again what failed for good."""

    mode: Mode
    job: str = ""
    new_run: str = ""
    line_limit: int = AS_BEFORE
    start: StartOptions

    def choose_limit(self, before: Plan) -> int:
        return before.line_limit if self.line_limit == AS_BEFORE else self.line_limit


def resume_run(run: str, options: ResumeOptions) -> int:
    """Start a run of what `run` has left; the exit code is the new run's, and 0 without a run when nothing is left."""
    home = get_home()
    earlier = find_earlier(run, home)
    raise_if_unready(earlier)
    before = load_plan(earlier.plan)
    mode, limit = options.mode, options.choose_limit(before)
    loaded = _load_job(options.job, before)
    refuse_bad_targets(loaded.job)
    name = name_run(options.new_run, loaded.job.name)
    with make_staging(home) as staging:
        staged = stage_job(loaded)
        adoption = _take_over(earlier, staged.loaded, staging, run=name, limit=limit, mode=mode)
        if adoption.left == 0:
            return _say_nothing_is_left(earlier, adoption, mode, as_json=options.start.as_json)
        tell_differences(adoption, before, loaded, limit)
        with tell_refusal(options.start.as_json):
            summary = summarize_adoption(adoption)
            plan = plan_work(staged.loaded, summary, run=name, line_limit=limit, on_notice=tell_notice)
        plan = msgspec.structs.replace(
            staged.put_back(plan), resumes=earlier.run, taken_over=describe_adoption(adoption, mode)
        )
        return start_planned(plan, options.start, prepared=staging)


def find_earlier(run: str, home: Path) -> RunFolder:
    """The run that is meant; without a name the latest, unless several are live."""
    live = [] if run else [each.run for each in list_runs(home) if is_lifecycle_alive(each)]
    if len(live) > 1:
        raise SpecError(f"{len(live)} runs are live", fix=f"Say which run you mean; these are live: {', '.join(live)}")
    return find_run(run, home)


def raise_if_unready(earlier: RunFolder) -> None:
    """Raise SpecError while the run is at work, ReleaseError while its machines may still be there."""
    name = earlier.run
    if is_lifecycle_alive(earlier):
        raise SpecError(
            "this run is still at work",
            where=name,
            fix=f"./inv follow {name} watches it, ./inv cancel {name} stops it.",
        )
    status = read_status(earlier)
    released = is_proven(earlier) if status is None else is_over(status) and status.released == "verified"
    if not released:
        raise ReleaseError(
            "it is not proven that this run's machines are gone", where=name, fix=f"Run first: ./inv release {name}"
        )


def _load_job(job: str, before: Plan) -> LoadedJob:
    if not job and is_object_address(before.job.source):  # it came from there, and its file is on another computer
        return LoadedJob(job=before.job, template=before.template)
    path = Path(job or before.job.source)
    if not path.is_file():
        raise SpecError("there is no such job file", where=str(path), fix="Name the job's file with --job.")
    return load_job(path)


@contextlib.contextmanager
def make_staging(home: Path) -> Iterator[Path]:
    """A hidden folder beside the runs, to become one whole or to vanish."""
    prepare_home(home)
    staging = Path(tempfile.mkdtemp(prefix=".taking-over-", dir=home / "runs"))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _take_over(earlier: RunFolder, loaded: LoadedJob, staging: Path, *, run: str, limit: int, mode: Mode) -> Adoption:
    return adopt_results(
        EarlierRun(run=earlier.run, folder=earlier.root),
        staging,
        run=run,
        input_path=Path(loaded.job.input),
        endpoint=loaded.job.endpoint,
        model=loaded.template.model,
        line_limit=limit,
        with_failures=mode == "resume",
    )


def _say_nothing_is_left(earlier: RunFolder, adoption: Adoption, mode: Mode, *, as_json: bool) -> int:
    done = "is answered" if mode == "retry" else "has its result"
    WORDS.print(f"{earlier.run}: each of the {adoption.lines:,} requests {done}; nothing is left, nothing was rented")
    if adoption.failures:
        WORDS.print(f"{adoption.failures:,} of them failed for good; ./inv retry {earlier.run} sends those again")
    status = read_status(earlier)
    if as_json and status is not None:
        print_data(status)
    return 0


def tell_differences(adoption: Adoption, before: Plan, loaded: LoadedJob, limit: int) -> None:
    """What a person may not expect, each in one sentence."""
    if limit and limit == before.line_limit:
        tell_notice(f"only the first {limit:,} lines, as in run {before.run}; --limit 0 takes all")
    if adoption.vanished:
        tell_notice(f"{adoption.vanished:,} requests of run {before.run} are not in this batch any more; left behind")
    if adoption.lost:
        tell_notice(f"run {before.run} told of {adoption.lost:,} more results than its files have; done again")
    if adoption.answers and loaded.template.spec != before.template.spec:
        tell_notice(f"run {before.run} had another deployment ({before.template.reference}); its answers are kept")


def summarize_adoption(adoption: Adoption) -> InputSummary:
    return InputSummary(
        requests=adoption.left,
        bytes=adoption.left_bytes,
        max_tokens_sum=adoption.left_max_tokens_sum,
        requests_without_max_tokens=adoption.left_max_tokens_unknown,
    )


def describe_adoption(adoption: Adoption, mode: Mode) -> TakenOver:
    return TakenOver(mode=mode, answers=adoption.answers, failures=adoption.failures, usage=adoption.usage)
