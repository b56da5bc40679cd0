"""What `plan --markdown` does: the plan of a job as Markdown on stdout, also where there is no cloud's key. Spends nothing."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import CredentialError, LeaseholdError
from schemas.job import LoadedJob, load_job
from stacks.planning.estimate import InputSummary
from stacks.planning.plan_markdown import render_offline_markdown, render_plan_markdown, render_refusal_markdown
from stacks.planning.planning import check_job_input, check_job_policy, summarize
from stacks.planning.staging import stage_job
from stacks.terminal.console import print_text
from stacks.verbs.start import prepare_run


def print_plan_markdown(job_file: Path, *, line_limit: int) -> None:
    """Print the plan, or without a key what is known offline; why there is none is printed too, and raised."""
    name = job_file.as_posix()
    try:
        print_text(_render(job_file, name, line_limit))
    except LeaseholdError as error:
        print_text(render_refusal_markdown(name, error))
        raise


def _render(job_file: Path, name: str, line_limit: int) -> str:
    notices: list[str] = []
    try:
        plan = prepare_run(job_file, line_limit=line_limit, will_write=False, on_notice=notices.append)
        return render_plan_markdown(name, plan, notices)
    except CredentialError as error:
        # A pull request of a fork has no keys; job and policy were in order before anybody was asked.
        loaded = load_job(job_file)
        _, removed = check_job_policy(loaded)
        return render_offline_markdown(name, loaded, _count(loaded, line_limit), error.what, removed)


def _count(loaded: LoadedJob, line_limit: int) -> InputSummary | None:
    """What the input holds; None where it is in S3 and the keys that are here cannot read it."""
    try:
        return summarize(check_job_input(stage_job(loaded).loaded, line_limit))
    except CredentialError:
        return None
