"""Whom nobody could tell is known before anything is rented, with no part of a secret in any text."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import SpecError
from schemas.job import Job
from schemas.notify import NotifyTarget
from schemas.policy import load_policy
from stacks.notifications.target_check import check_targets
from tests.stacks.run_files import make_job

HIDDEN = "hidden-part"
WRONG = [
    f"ftp://example.org/{HIDDEN}",
    f"http://hooks.example.org/{HIDDEN}",
    f"https://u:{HIDDEN}@example.org/",
    HIDDEN,
]


def make_telling(*targets: NotifyTarget, source: Path) -> Job:
    return make_job(notify=targets, source=str(source))


@pytest.mark.parametrize("variable", ["LEASEHOLD_NOTIFY_WEBHOOK", "LEASEHOLD_NOTIFY_SLACK"])
@pytest.mark.parametrize("address", WRONG)
def test_a_wrong_address_in_the_environment_is_a_problem_of_its_variable(variable: str, address: str) -> None:
    checked = check_targets({variable: address})

    (problem,) = checked.problems
    assert problem.file == variable
    assert HIDDEN not in str(problem)
    with pytest.raises(SpecError) as caught:
        checked.raise_if_bad()
    assert variable in str(caught.value) and HIDDEN not in str(caught.value)


def test_a_wrong_address_by_reference_is_a_problem_of_its_line_in_the_job(tmp_path: Path) -> None:
    source = tmp_path / "job.yaml"
    source.write_text("version: 1\nnotify:\n  - {type: github}\n  - {type: webhook, url: env:HOOK}\n")
    targets = (NotifyTarget(type="github"), NotifyTarget(type="webhook", url="env:HOOK"))

    environ = {"HOOK": WRONG[0], "GITHUB_STEP_SUMMARY": "summary.md"}

    (problem,) = check_targets(environ, job=make_telling(*targets, source=source)).problems
    assert (problem.file, problem.line, problem.path) == (str(source), 4, "notify[1]")


def test_the_place_is_right_also_where_there_is_no_step_summary(tmp_path: Path) -> None:
    targets = (NotifyTarget(type="github"), NotifyTarget(type="webhook", url="env:HOOK"))

    (problem,) = check_targets({"HOOK": WRONG[0]}, job=make_telling(*targets, source=tmp_path / "gone.yaml")).problems

    assert problem.path == "notify[1]"


def test_what_is_not_set_here_is_a_warning_as_it_may_be_set_where_the_job_runs(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nnotify:\n  - {type: slack, url: env:SLACK_WEBHOOK_URL}\n")

    checked = check_targets({}, policy=load_policy(path))

    assert checked.problems == ()
    (warning,) = checked.warnings
    assert (warning.file, warning.line) == (str(path), 3)
    assert "SLACK_WEBHOOK_URL is not set" in warning.message


def test_whoever_can_be_told_is_named_by_type_and_host() -> None:
    environ = {"LEASEHOLD_NOTIFY_WEBHOOK": f"https://hooks.example.org/{HIDDEN}", "LEASEHOLD_NOTIFY_SECRET": "s"}

    checked = check_targets(environ)

    assert checked.labels == ("webhook hooks.example.org",)
    assert checked.problems == checked.warnings == ()
