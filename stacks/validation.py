"""What `validate` does: every problem of jobs, templates and inputs at once, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from schemas.errors import Problem, SpecError
from schemas.job import load_job
from stacks.console import WORDS, print_data
from stacks.planning import check_job_input, refuse_bad_output


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one job; omitted counts problems beyond those listed."""

    job: str
    ok: bool
    requests: int = 0
    problems: tuple[Problem, ...] = ()
    omitted: int = 0
    warnings: tuple[Problem, ...] = ()


def report_problems(jobs: Sequence[Path], *, as_json: bool) -> int:
    """Check every job; 0 when all are good, else 2."""
    if not jobs:
        raise SpecError("name at least one job", fix="./inv validate jobs/demo.yaml")
    reports = [_check(job) for job in jobs]
    if as_json:
        print_data(reports)
    else:
        for report in reports:
            _print_report(report)
    return 0 if all(report.ok for report in reports) else SpecError.exit_code


def _check(job: Path) -> Report:
    try:
        loaded = load_job(job)
        refuse_bad_output(loaded.job)
        found = check_job_input(loaded)
    except SpecError as error:
        problems = error.problems or (Problem(file=error.where or str(job), message=error.what, fix=error.fix),)
        return Report(job=str(job), ok=False, problems=problems, omitted=error.omitted)
    return Report(
        job=str(job),
        ok=found.problem_count == 0,
        requests=found.lines,
        problems=found.problems,
        omitted=found.problem_count - len(found.problems),
        warnings=loaded.warnings,
    )


def _print_report(report: Report) -> None:
    for warning in report.warnings:
        WORDS.print(f"warning: {warning}", style="yellow", markup=False)
    for problem in report.problems:
        WORDS.print(str(problem), markup=False)
    if report.omitted:
        WORDS.print(f"... and {report.omitted:,} more")
    count = len(report.problems) + report.omitted
    verdict = f"ok, {report.requests:,} requests" if report.ok else f"{count:,} problem(s)"
    WORDS.print(f"{report.job}: {verdict}", style="green" if report.ok else "red", markup=False)
