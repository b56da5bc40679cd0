"""What `plan --markdown` does: the plan of a job as Markdown on stdout, also where there is no cloud's key. Spends nothing."""

from __future__ import annotations

from pathlib import Path

from runtime.objects.object_settings import is_object_address
from schemas.errors import CredentialError, LeaseholdError
from schemas.job import load_job
from stacks.planning.plan_markdown import render_offline_markdown, render_plan_markdown, render_refusal_markdown
from stacks.planning.planning import check_job_input, check_job_policy, summarize
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
    try:
        return render_plan_markdown(name, prepare_run(job_file, line_limit=line_limit))
    except CredentialError as error:
        # A pull request of a fork has no keys; job and policy were in order before a cloud was asked, and an input here too.
        loaded = load_job(job_file)
        is_far = is_object_address(loaded.job.input)
        summary = None if is_far else summarize(check_job_input(loaded, line_limit))
        _, removed = check_job_policy(loaded)
        return render_offline_markdown(name, loaded, summary, error.what, removed)
