"""The live tests themselves, tried against the emulators: skipped unless asked for, and nothing is left when they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.emulated_clouds import EmulatedClouds, open_emulated_clouds
from tests.journeys.workshop import ROOT, Workshop
from tests.live.live_run import CAP_VARIABLE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


@pytest.fixture
def clouds(tmp_path: Path) -> Iterator[EmulatedClouds]:
    folder = tmp_path / "accounts"
    folder.mkdir()
    with open_emulated_clouds(Workshop(folder)) as made:
        yield made


def run_tier(clouds: EmulatedClouds, folder: Path, cap: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest over the live tests with the emulators' exports, as a person runs it with keys of their own."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    environment |= {name: text for name, text in clouds.workshop.environment.items() if name != "LEASEHOLD_HOME"}
    if cap:
        environment[CAP_VARIABLE] = cap
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(folder / "live"),
    ]
    return subprocess.run(
        [*command, "tests/live/test_live_clouds.py", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_without_a_cap_nothing_is_rented_and_the_log_says_why(clouds: EmulatedClouds, tmp_path: Path) -> None:
    clouds.open("runpod")
    done = run_tier(clouds, tmp_path, "")

    assert done.returncode == 0, done.stdout
    assert "2 skipped" in done.stdout and f"{CAP_VARIABLE} is not set: live tests rent real machines" in done.stdout
    assert clouds.running["runpod"].history() == []


def test_a_cap_that_is_no_amount_fails_and_a_cloud_without_a_key_is_left_out(
    clouds: EmulatedClouds, tmp_path: Path
) -> None:
    wrong = run_tier(clouds, tmp_path, "a lot")
    keyless = run_tier(clouds, tmp_path, "2")

    assert wrong.returncode == 1 and f"{CAP_VARIABLE}='a lot' is no amount in USD" in wrong.stdout
    assert keyless.returncode == 0 and "2 skipped" in keyless.stdout
    assert "RUNPOD_API_KEY is not set: runpod is left out" in keyless.stdout


def test_the_live_tests_pass_and_a_failure_leaves_nothing(clouds: EmulatedClouds, tmp_path: Path) -> None:
    """One cloud where all goes well, and one where a machine is made and its engine never comes up."""
    clouds.open("runpod", "lambda")
    clouds.running["lambda"].set_fault("engine_crash", "CUDA out of memory")
    done = run_tier(clouds, tmp_path, "4")

    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert {machine.cloud for machine in clouds.machines()} == {"runpod", "lambda"}
    assert all(machine.is_gone for machine in clouds.machines())
    assert clouds.list_keys() == []
    prices = [machine.price_usd_per_hour for machine in clouds.machines() if machine.cloud == "runpod"]
    assert prices == [0.27]
