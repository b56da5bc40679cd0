"""The workflows that ship: their steps exist, their actions are pinned, they may do no more than they need.

tests/journeys/test_workflow_flows.py runs their shell steps.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml*"))


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return loaded


def list_steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_for_the_checks_for_jobs_and_for_reap() -> None:
    assert {path.name for path in WORKFLOWS} >= {"check.yaml", "jobs.yaml", "reap.yaml", "pulumi-only.yaml.example"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_version_of_a_pinned_action_stands_beside_it_and_is_the_same_everywhere(path: Path) -> None:
    pins = re.findall(r"uses: ([\w./-]+@[0-9a-f]{40})(?: # (v\d+\.\d+\.\d+))?$", path.read_text(), re.MULTILINE)
    everywhere = dict(
        re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", "".join(each.read_text() for each in reversed(WORKFLOWS)))
    )

    assert len(pins) == sum("uses" in step for step in list_steps(path))
    assert all(version for _, version in pins)
    assert all(everywhere[pin.partition("@")[0]] == pin.partition("@")[2] for pin, _ in pins)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_nothing_that_others_write_is_pasted_into_a_script(path: Path) -> None:
    """An expression in `run` would be replaced in the text of the script; through the environment it is only a value."""
    assert [step["run"] for step in list_steps(path) if "${{" in step.get("run", "")] == []


def test_only_the_comment_may_write_and_it_runs_nothing_of_the_pull_request() -> None:
    jobs = load(ROOT / ".github" / "workflows" / "jobs.yaml")["jobs"]

    assert {name: job["permissions"] for name, job in jobs.items() if "permissions" in job} == {
        "comment": {"contents": "read", "pull-requests": "write"}
    }
    (checkout,) = [step for step in jobs["comment"]["steps"] if "uses" in step]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]


def test_a_pull_request_gets_no_key_that_could_rent_anything() -> None:
    jobs = load(ROOT / ".github" / "workflows" / "jobs.yaml")["jobs"]
    secrets = set(re.findall(r"secrets\.(\w+)", str(jobs["plan"]) + str(jobs["comment"])))

    assert secrets == {"RUNPOD_CATALOG_KEY", "S3_READER_KEY_ID", "S3_READER_SECRET_KEY"}
    assert "environment" not in jobs["plan"]
    (planning,) = [step for step in jobs["plan"]["steps"] if step.get("id") == "plan"]
    assert planning["env"]["AWS_EC2_METADATA_DISABLED"] == "true", "nor the role of a runner of one's own"


@pytest.mark.parametrize("name", ["jobs.yaml", "pulumi-only.yaml.example"])
def test_one_stack_has_one_run_at_a_time_and_is_released_whatever_happened(name: str) -> None:
    run = load(ROOT / ".github" / "workflows" / name)["jobs"]["run"]
    release = next(step for step in run["steps"] if step.get("name") == "release")

    assert run["concurrency"]["group"].startswith("stack-${{")
    assert run["concurrency"]["cancel-in-progress"] is False
    assert release["if"] == "always()"
    assert "./inv release" in release["run"]


def test_whoever_runs_or_releases_reaches_the_same_data_and_the_same_state_in_s3() -> None:
    steps = {
        step.get("name"): step for step in load(ROOT / ".github" / "workflows" / "jobs.yaml")["jobs"]["run"]["steps"]
    }
    settings = [
        {name: value for name, value in steps[step]["env"].items() if name.startswith(("AWS_", "PULUMI_"))}
        for step in ("run", "release")
    ]

    assert settings[0] == settings[1]
    assert settings[0].keys() >= {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
        "PULUMI_BACKEND_URL",
    }


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit(path: Path) -> None:
    used = [step["uses"] for step in list_steps(path) if "uses" in step]

    assert used
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_has_an_end(path: Path) -> None:
    workflow = load(path)

    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_of_ours_in_a_step_exists(path: Path) -> None:
    for step in list_steps(path):
        for command in re.findall(r"^(\./inv|\.ci/run)\b", step.get("run", ""), re.MULTILINE):
            assert (ROOT / command).exists()


def test_reap_runs_on_a_schedule_and_is_never_cut_off_by_itself() -> None:
    workflow = load(ROOT / ".github" / "workflows" / "reap.yaml")

    assert workflow["on"]["schedule"][0]["cron"]
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert any("./inv reap --yes" in step.get("run", "") for step in list_steps(ROOT / ".github/workflows/reap.yaml"))


@pytest.mark.wire
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_keeps_to_githubs_own_schema(path: Path) -> None:
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, "--default-filetype", "yaml", path], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout


def test_two_jobs_of_one_name_are_two_runs(tmp_path: Path) -> None:
    run = load(ROOT / ".github" / "workflows" / "jobs.yaml")["jobs"]["run"]
    step = next(step for step in run["steps"] if step.get("name") == "name the run")
    assert step["env"] == {"JOB": "${{ matrix.job }}", "INDEX": "${{ strategy.job-index }}"}

    for index, job in enumerate(["jobs/a/tickets.yaml", "jobs/b/tickets.yaml", "jobs/$(touch x) ü.yaml"]):
        environ = {"JOB": job, "INDEX": str(index), "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1"}
        environ |= {"GITHUB_ENV": str(tmp_path / "env"), "PATH": os.environ["PATH"]}
        subprocess.run(["bash", "-e", "-c", step["run"]], env=environ, cwd=tmp_path, check=True, timeout=20)

    names = (tmp_path / "env").read_text().splitlines()
    assert names[:2] == ["RUN=ci-7-1-0-tickets", "RUN=ci-7-1-1-tickets"]
    assert re.fullmatch(r"RUN=ci-7-1-2-[A-Za-z0-9_.-]+", names[2])
    assert [path.name for path in tmp_path.iterdir()] == ["env"]
