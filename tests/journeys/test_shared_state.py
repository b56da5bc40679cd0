"""Pulumi's state in S3: a run that was started on one computer is released on another one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos.directed import expect_each_machine_made_once, kill, wait_for_event
from tests.journeys.workshop import Workshop, end_hard
from tests.runtime.object_service import ObjectService, serve_objects

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectService]:
    with serve_objects() as service:
        yield service


@pytest.fixture
def there(workshop: Workshop, objects: ObjectService) -> Workshop:
    """The computer that starts the run; its local cloud is the account that both computers share."""
    share_state(workshop, objects.make_bucket(), objects)
    return workshop


@pytest.fixture
def here(there: Workshop, tmp_path: Path) -> Workshop:
    """Another computer: nothing of the run is on it, but the same credentials."""
    folder = tmp_path / "here"
    folder.mkdir()
    made = Workshop(folder)
    made.environment |= {**there.environment, "LEASEHOLD_HOME": str(made.home)}
    return made


def share_state(workshop: Workshop, bucket: str, objects: ObjectService) -> None:
    endpoint = f"http://127.0.0.1:{objects.port}"
    workshop.environment |= {
        **objects.environment,
        "BUCKET": bucket,
        "PULUMI_BACKEND_URL": f"s3://{bucket}?region=us-east-1&endpoint={endpoint}&s3ForcePathStyle=true",
        "PULUMI_CONFIG_PASSPHRASE": "what both computers know",
    }


def start_and_lose(there: Workshop, run: str, *, boot_fault: str = "") -> None:
    """Start a run, and lose the computer: everything but the machines is killed at once."""
    more = {"LEASEHOLD_LOCAL_FAULT": boot_fault} if boot_fault else {}
    job = there.write_job(lines=4000, max_tokens=64)
    assert there.inv("run", str(job), "--run", run, "--detach", **more).returncode == 0
    there.wait_for("both machines", lambda: len(there.machines()) == 2)
    if not boot_fault:
        there.wait_for_answers(run, 1)
    there.wait_for("their processes", lambda: all(machine["pid"] for machine in there.machines()))
    machines = [psutil.Process(machine["pid"]) for machine in there.machines()]
    spared = {each.pid for machine in machines for each in [machine, *machine.children(recursive=True)]}
    for _ in range(3):
        for process in there.ours():
            with contextlib.suppress(psutil.Error):
                if process.pid not in spared and "LEASEHOLD_MACHINE_FOLDER" not in process.environ():
                    end_hard(process)
    assert len(there.machines()) == 2


def test_a_run_whose_computer_died_is_released_from_another_one(there: Workshop, here: Workshop) -> None:
    start_and_lose(there, "shared")

    refused = here.inv("release", "shared", PULUMI_CONFIG_PASSPHRASE="what the other does not know")
    left = len(there.machines())
    done = here.inv("release", "shared")

    token = json.loads((there.run_dir("shared") / "lease.json").read_bytes())["token"]
    assert (refused.returncode, left) == (12, 2)
    assert "incorrect passphrase" in refused.stderr and "WARN" not in refused.stderr
    assert f"without its state: ./inv release {token} --force" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert "shared: released, verified" in done.stdout
    assert "started elsewhere" in done.stderr
    assert there.machines() == []
    assert "no run" in here.inv("release", "shared").stderr


def move_lock(objects: ObjectService, bucket: str, run: str, host: str) -> None:
    """Let the lock on a stack be that of another computer: here both are one."""
    store = objects.open(f"s3://{bucket}")
    (facts,) = store.list(f".pulumi/locks/organization/leasehold/{run}/")
    found = store.read(facts.key)
    assert found is not None
    store.write(facts.key, json.dumps({**json.loads(found[0]), "hostname": host}).encode())


def test_the_lock_of_a_computer_that_died_in_mid_boot_is_told_and_force_takes_it_away(
    there: Workshop, here: Workshop, objects: ObjectService
) -> None:
    start_and_lose(there, "locked", boot_fault="hang")
    move_lock(objects, there.environment["BUCKET"], "locked", "laptop-of-ann")

    refused = here.inv("release", "locked")
    left = len(there.machines())
    forced = here.inv("release", "locked", "--force")

    assert refused.returncode == 12, refused.stderr
    assert "on laptop-of-ann" in refused.stderr
    assert "./inv release locked --force" in refused.stderr
    assert left == 2
    assert forced.returncode == 0, forced.stderr
    assert there.machines() == []


def test_a_pulumi_that_is_killed_is_started_again_though_its_lock_is_in_s3(there: Workshop) -> None:
    run = there.start("run", str(there.write_job()), "--run", "boot", LEASEHOLD_LOCAL_FAULT="delay=2")
    wait_for_event(there, "boot", "machine_created")

    kill(there, "pulumi")

    assert run.wait(90) == 0
    assert there.events("boot").count('"up_restarted"') == 2, "the second finds the lock of the first, and clears it"
    expect_each_machine_made_once(there, "boot", machines=2)
    assert there.status("boot")["released"] == "verified"


def test_the_computer_that_comes_back_finds_its_run_released(there: Workshop, here: Workshop) -> None:
    start_and_lose(there, "back")
    assert here.inv("release", "back").returncode == 0

    done = there.inv("release", "back")

    assert done.returncode == 0, done.stderr
    status = there.status("back")
    assert status["released"] == "verified"
    assert json.loads((there.run_dir("back") / "lease.json").read_bytes())["state"] == "released"
    assert list(there.cloud.iterdir()) == []


def test_on_the_computer_itself_the_lock_of_its_dead_process_is_cleared(there: Workshop) -> None:
    start_and_lose(there, "mine", boot_fault="hang")

    done = there.inv("release", "mine")

    assert done.returncode == 0, done.stderr
    assert "removed the lock that process" in done.stderr
    assert there.machines() == []
