"""The same program by hand: `eval "$(./inv env)"`, then pulumi alone, without a life cycle of ours."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stacks.stack import prepare_project
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

Pulumi = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pulumi(workshop: Workshop) -> Pulumi:
    """Run pulumi as a user would after `eval "$(./inv env)"`."""
    exports = workshop.inv("env").stdout
    pairs = [shlex.split(line)[1] for line in exports.splitlines()]
    environment = {**workshop.environment, **dict(pair.split("=", 1) for pair in pairs)}
    project = prepare_project(workshop.home)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", *arguments],
            env=environment,
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def make_stack(pulumi: Pulumi, name: str, job: Path) -> None:
    assert pulumi("stack", "init", name).returncode == 0
    assert pulumi("config", "set", "job", str(job)).returncode == 0


def test_preview_shows_the_machines_and_does_nothing(workshop: Workshop, pulumi: Pulumi) -> None:
    make_stack(pulumi, "look", workshop.write_job())

    shown = pulumi("preview")

    assert shown.returncode == 0, shown.stdout
    assert "machine-0" in shown.stdout and "machine-1" in shown.stdout
    assert not workshop.run_dir("look").exists()
    assert workshop.machines() == []


def test_up_runs_the_batch_refresh_sees_the_machines_gone_and_destroy_proves_it(
    workshop: Workshop, pulumi: Pulumi
) -> None:
    make_stack(pulumi, "byhand", workshop.write_job(output="answers"))

    up = pulumi("up", "--yes", "--skip-preview", "--parallel", "64")
    outputs = json.loads(pulumi("stack", "output", "--json").stdout)
    refreshed = pulumi("refresh", "--yes", "--skip-preview", "--suppress-progress")
    destroyed = pulumi("destroy", "--yes", "--skip-preview")

    assert up.returncode == 0, up.stdout + up.stderr
    assert "60 of 60 requests answered" in up.stdout
    assert len(Path(outputs["output"]).read_text().splitlines()) == 60
    assert len((workshop.folder / "answers" / "output.jsonl").read_text().splitlines()) == 60
    receipt = json.loads(workshop.inv("receipt", "byhand", "--json").stdout)
    assert [line["proven_gone"] for line in receipt["machines"]] == [True, True]
    assert (receipt["requests_completed"], receipt["released"]) == (60, True)
    assert len(outputs["machines"]) == 2
    assert "- 2 deleted" in refreshed.stdout, refreshed.stdout
    assert destroyed.returncode == 0, destroyed.stdout
    lease = json.loads((workshop.run_dir("byhand") / "lease.json").read_bytes())
    assert lease["state"] == "released"
    workshop.wait_until_nothing_is_left()


def test_a_bad_job_is_one_message_without_a_traceback(workshop: Workshop, pulumi: Pulumi) -> None:
    job = workshop.write_job(machines={"replicas": "many", "candidates": [{"cloud": "local"}]})
    make_stack(pulumi, "wrong", job)

    shown = pulumi("preview")

    assert shown.returncode != 0
    assert "replicas" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr


def test_the_state_holds_no_secret_in_clear(workshop: Workshop, pulumi: Pulumi) -> None:
    make_stack(pulumi, "secret", workshop.write_job())

    assert pulumi("up", "--yes", "--skip-preview").returncode == 0
    state = pulumi("stack", "export").stdout

    folder = workshop.run_dir("secret")
    secrets = [(folder / "engine.key").read_text(), (folder / "id_ed25519").read_text().splitlines()[2]]
    host_keys = [path for path in (folder / "hostkeys").iterdir() if path.suffix == ""]
    secrets += [path.read_text().splitlines()[2] for path in host_keys]
    assert len(secrets) >= 4
    assert not [secret for secret in secrets if secret in state]
    assert pulumi("destroy", "--yes", "--skip-preview").returncode == 0
