"""What `validate` does: every problem of jobs, templates and inputs at once, offline; as text, as data, or for GitHub."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from runtime.batch.batch_input import InputReport, check_input
from runtime.objects.object_settings import is_object_address
from schemas.errors import PolicyError, Problem, SpecError, list_by_kind
from schemas.job import JobReading, LoadedJob, read_job
from schemas.problems import merge_problems
from schemas.raw_spec import find_text
from schemas.template import Template, read_template
from schemas.yaml_source import Document, load_document
from stacks.launch.machine_check import find_machine_problems
from stacks.notifications.target_check import check_targets
from stacks.policy.gate import is_policy_problem, list_policy_problems, load_policy_in_force
from stacks.terminal.console import WORDS, print_data
from stacks.terminal.count_words import count_things
from stacks.verbs.github import render_annotation


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one job or template; omitted counts problems beyond those listed.

    problem_counts: how many bad lines the input has of each code, those beyond the listed ones included. input_checked:
    False for an input in S3, since nothing is contacted here.
    """

    job: str
    ok: bool
    kind: Literal["job", "template"] = "job"
    requests: int = 0
    input_checked: bool = True
    problems: tuple[Problem, ...] = ()
    omitted: int = 0
    problem_counts: Mapping[str, int] = {}
    warnings: tuple[Problem, ...] = ()

    @property
    def problem_count(self) -> int:
        return len(self.problems) + self.omitted


def report_problems(jobs: Sequence[Path], environ: Mapping[str, str], *, as_json: bool, as_github: bool = False) -> int:
    """Check every job, or template; 0 when all are good, 5 when only the policy refuses, else 2."""
    if not jobs:
        raise SpecError("name at least one job", fix="./inv validate jobs/demo.yaml")
    if as_json and as_github:
        raise SpecError("--json and --github exclude each other", fix="Keep one of the two.")
    reports = [_check(job, environ) for job in jobs]
    if as_json:
        print_data(reports)
    for report in () if as_json else reports:
        if as_github:
            sys.stdout.writelines(f"{line}\n" for line in _render_annotations(report))
        else:
            _print_problems(report)
        _print_verdict(report)
    if all(report.ok for report in reports):
        return 0
    # What is refused by the policy alone is no mistake of the file.
    by_policy = all(is_policy_problem(problem) for report in reports for problem in report.problems)
    return PolicyError.exit_code if by_policy else SpecError.exit_code


def _check(path: Path, environ: Mapping[str, str]) -> Report:
    document = load_document(path).document
    if document is not None and "spec" in document.data and "machines" not in document.data:
        return _check_template(path)
    reading = read_job(path)
    own = [*reading.problems, *(find_machine_problems(reading.loaded) if reading.loaded else ())]
    found = _check_input(reading)
    bad_lines = found.problems if isinstance(found, InputReport) else tuple(found)
    refused, removed = list_policy_problems(reading.loaded, environ) if reading.loaded else ([], [])
    told = check_targets(
        environ, job=reading.loaded.job if reading.loaded else None, policy=load_policy_in_force(environ)
    )
    problems = merge_problems(own, refused, told.problems) + bad_lines
    in_s3 = reading.loaded is not None and is_object_address(reading.loaded.job.input)
    report = Report(job=str(path), ok=not problems, problems=problems, input_checked=not in_s3)
    if reading.loaded:
        report = msgspec.structs.replace(
            report, warnings=merge_problems(reading.loaded.warnings, removed, told.warnings)
        )
    if isinstance(found, InputReport):
        omitted = found.problem_count - len(found.problems)
        counts = found.problem_counts
        report = msgspec.structs.replace(report, requests=found.lines, omitted=omitted, problem_counts=counts)
    return report


def _check_template(path: Path) -> Report:
    reading = read_template(path)
    problems, warnings = reading.problems, reading.warnings
    return Report(job=str(path), kind="template", ok=not problems, problems=problems, warnings=warnings)


def _check_input(reading: JobReading) -> InputReport | Sequence[Problem]:
    """The input as far as it can be judged: also beside a job with mistakes, whose endpoint or model may be unknown."""
    document = reading.document
    told = {problem.path for problem in reading.problems}
    if document is None or "input" in told or not _names_file(document):
        return ()
    if is_object_address(find_text(document.data, ("input",))):
        return ()  # nothing is contacted here; it is checked when it is planned
    path = _find_input(document, reading.loaded)
    endpoint = "" if "endpoint" in told else find_text(document.data, ("endpoint",)) or "/v1/chat/completions"
    model, most_tokens = _find_bounds(reading.template, reading.loaded)
    try:
        return check_input(path, endpoint=endpoint, model=model, most_tokens=most_tokens)
    except SpecError as error:
        if error.where == str(path):
            return [document.make_problem(("input",), error.what, code="bad_input", fix=error.fix)]
        return [Problem(file=error.where, message=error.what, code="bad_input", fix=error.fix)]


def _names_file(document: Document) -> bool:
    """Whether the input is on this computer: what is in a bucket is checked when it has been fetched."""
    text = find_text(document.data, ("input",))
    return bool(text) and "://" not in text


def _find_input(document: Document, loaded: LoadedJob | None) -> Path:
    if loaded:
        return Path(loaded.job.input)
    folder = Path(document.file).resolve().parent
    return (folder / Path(find_text(document.data, ("input",))).expanduser()).resolve()


def _find_bounds(template: Template | None, loaded: LoadedJob | None) -> tuple[str, int]:
    """The model that lines must ask for and the longest answer; overrides count only when they are in order."""
    if template is None:
        return "", 0
    return template.model, template.most_tokens if loaded else 0


def _render_annotations(report: Report) -> Iterator[str]:
    root = Path.cwd()
    yield from (render_annotation(warning, "warning", root=root) for warning in report.warnings)
    yield from (render_annotation(problem, "error", root=root) for problem in report.problems)
    if report.omitted:
        file = report.problems[-1].file
        rest = Problem(file=file, message=f"{report.omitted:,} more problems, in lines further down", code="more")
        yield render_annotation(rest, "error", root=root)


def _print_problems(report: Report) -> None:
    for warning in report.warnings:
        WORDS.print(f"warning: {warning}", style="yellow", markup=False)
    for text in list_by_kind(report.problems, report.problem_counts):
        WORDS.print(text, markup=False)


def _print_verdict(report: Report) -> None:
    count = report.problem_count
    counted = (
        count_things(report.requests, "request")
        if report.input_checked
        else "its input is in S3: checked when it is planned"
    )
    good = "ok, a template" if report.kind == "template" else f"ok, {counted}"
    verdict = good if report.ok else count_things(count, "problem")
    WORDS.print(f"{report.job}: {verdict}", style="green" if report.ok else "red", markup=False)
