"""The workflows that ship: their steps exist, their actions are pinned, they may do no more than they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return loaded


def list_steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_for_the_checks_and_for_reap() -> None:
    assert {path.name for path in WORKFLOWS} >= {"check.yaml", "reap.yaml"}


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
