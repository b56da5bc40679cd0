"""Deaths at chosen moments through the real engine, one test each: what is left is found and given back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from schemas.errors import CancelledError
from stacks.verbs.start import launch_run, prepare_run
from tests.chaos.account import EmulatedAccount
from tests.chaos.directed import SLOW, kill, open_emulated, read_ids, wait_for_event
from tests.chaos.engine_run import is_victim, read_words
from tests.chaos.rented_job import write_rented_job
from tests.journeys.workshop import Workshop, end_hard

pytestmark = [pytest.mark.chaos, pytest.mark.engine, pytest.mark.timeout(150)]


def release(workshop: Workshop, run: str, *flags: str) -> str:
    done = workshop.inv("release", run, *flags)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert workshop.machines() == [], "called verified while machines live"
    return done.stderr


@pytest.fixture(params=["runpod", "lambda"])
def rented(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[EmulatedAccount]:
    yield from open_emulated(request.param, workshop)


@pytest.fixture
def runpod(workshop: Workshop) -> Iterator[EmulatedAccount]:
    yield from open_emulated("runpod", workshop)


def read_expiry(workshop: Workshop, run: str) -> float:
    return float(json.loads((workshop.run_dir(run) / "lease.json").read_bytes())["expires_at"])


def test_a_life_cycle_killed_before_the_first_create_leaves_nothing(workshop: Workshop) -> None:
    run = workshop.start("run", str(workshop.write_job()), "--run", "early")
    workshop.wait_for("the life cycle", lambda: (workshop.run_dir("early") / "lifecycle.json").exists())
    assert not (workshop.run_dir("early") / "intents.jsonl").exists()

    kill(workshop, "life cycle")
    assert run.wait(30) == 1
    release(workshop, "early")

    assert workshop.status("early")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_a_life_cycle_that_starts_after_its_release_makes_no_machine_that_stays(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in workshop.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("stacks.verbs.start.start_lifecycle", lambda *_, **__: 0)
    plan = prepare_run(workshop.write_job(), run="late")
    folder = launch_run(plan, workshop.environment, keep=False, detached=True)
    release(workshop, "late")

    lifecycle = [sys.executable, "-m", "stacks.lifecycle", str(folder.root)]
    code = subprocess.call(lifecycle, env=workshop.environment, timeout=60)

    assert code == CancelledError.exit_code
    assert workshop.status("late")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_a_pod_whose_create_was_never_answered_is_found_by_release(workshop: Workshop, runpod: EmulatedAccount) -> None:
    runpod.emulator.set_fault("create_hang_after_commit", 3.0)
    workshop.start("run", write_rented_job(workshop, runpod, hours=1), "--run", "lost", "--yes")
    workshop.wait_for("the pod", runpod.live)

    kill(workshop, "life cycle", "pulumi", "provider")
    assert '"answer"' not in (workshop.run_dir("lost") / "intents.jsonl").read_text()
    done = workshop.inv("release", "lost")

    assert done.returncode == 0, done.stderr
    assert runpod.live() == []
    assert len(runpod.emulator.machines()) == 1
    assert runpod.find_harm() == ""


def test_what_a_killed_life_cycle_left_at_work_is_ended_so_that_destroy_can_do_the_release(workshop: Workshop) -> None:
    workshop.start("run", str(workshop.write_job(**SLOW)), "--run", "left", LEASEHOLD_LOCAL_FAULT="hang@1")
    workshop.wait_for_answers("left", 1)
    kill(workshop, "life cycle")
    assert [each for each in workshop.ours() if is_victim("pulumi", read_words(each))]

    told = release(workshop, "left")

    assert "that a killed run had left" in told
    assert "sweeping the clouds directly" not in told
    assert not list((workshop.home / "state").rglob("left.json"))
    workshop.wait_until_nothing_is_left(timeout_s=5)


@pytest.mark.parametrize("moment", ["lease_revoked", "machine_gone"])
def test_a_life_cycle_killed_while_it_releases_is_finished_by_release(workshop: Workshop, moment: str) -> None:
    workshop.start("run", str(workshop.write_job()), "--run", "halfway")
    wait_for_event(workshop, "halfway", moment)

    kill(workshop, "life cycle")
    release(workshop, "halfway")

    status = workshop.status("halfway")
    assert (status["state"], status["exit_code"], status["released"]) == ("completed", 0, "verified")
    assert read_ids(workshop, "halfway") == sorted(f"id-{number}" for number in range(60))
    workshop.wait_until_nothing_is_left()


@pytest.mark.parametrize("moment", ["in_progress", "lease_revoked", "machine_gone"])
def test_when_the_life_cycle_is_dead_the_dispatcher_sees_to_the_release(workshop: Workshop, moment: str) -> None:
    results = workshop.folder / "results"
    workshop.start("run", str(workshop.write_job(**SLOW, output=str(results))), "--run", "orphan")
    wait_for_event(workshop, "orphan", moment)

    kill(workshop, "life cycle")

    status = workshop.wait_for_end("orphan", 60)
    assert (status["state"], status["exit_code"], status["released"]) == ("completed", 0, "verified")
    assert workshop.machines() == []
    assert "orphan_release" in workshop.events("orphan")
    assert read_ids(workshop, "orphan") == sorted(f"id-{number}" for number in range(300))
    assert len((results / "output.jsonl").read_text().splitlines()) == 300
    assert json.loads((workshop.run_dir("orphan") / "receipt.json").read_bytes())["released"]
    workshop.wait_until_nothing_is_left()


def test_two_releases_at_once_both_find_the_proof(workshop: Workshop) -> None:
    workshop.start("run", str(workshop.write_job(**SLOW)), "--run", "twice")
    workshop.wait_for_answers("twice", 5)
    kill(workshop, "life cycle")

    both = [workshop.start("release", "twice") for _ in range(2)]

    typed = workshop.folder / "typed.log"
    assert [each.wait(60) for each in both] == [0, 0], typed.read_text()
    assert "Traceback" not in typed.read_text()
    assert workshop.status("twice")["released"] == "verified"
    assert len(read_ids(workshop, "twice")) == 300
    workshop.wait_until_nothing_is_left()


def test_a_release_killed_in_mid_destroy_is_finished_by_the_next(workshop: Workshop) -> None:
    workshop.start("run", str(workshop.write_job(**SLOW)), "--run", "again")
    workshop.wait_for_answers("again", 5)
    kill(workshop, "life cycle", "dispatcher")
    first = workshop.start("release", "again")
    workshop.wait_for(
        "its destroy", lambda: "$ pulumi destroy" in (workshop.run_dir("again") / "pulumi.log").read_text()
    )

    end_hard(psutil.Process(first.pid))
    release(workshop, "again")

    workshop.wait_until_nothing_is_left()


def test_release_of_a_live_run_cancels_it_and_keeps_what_is_finished(workshop: Workshop) -> None:
    # More than a quick computer answers before the release is heard.
    run = workshop.start("run", str(workshop.write_job(lines=3000, max_tokens=200)), "--run", "live")
    workshop.wait_for_answers("live", 10)

    release(workshop, "live")

    assert run.wait(10) in (7, 130)
    status = workshop.status("live")
    assert (status["state"], status["released"]) == ("cancelled", "verified")
    assert len(workshop.lines("live")) >= 10
    assert len(set(read_ids(workshop, "live"))) == len(read_ids(workshop, "live")) == 3000
    workshop.wait_until_nothing_is_left()


def test_with_everything_of_ours_dead_a_local_machine_ends_itself_at_its_expiry(workshop: Workshop) -> None:
    job = workshop.write_job(lines=3000, max_tokens=200, limits={"max_hours": 15 / 3600})
    run = workshop.start("run", str(job), "--run", "alone")
    workshop.wait_for_answers("alone", 5)

    kill(workshop, "life cycle", "dispatcher")
    run.kill()
    shutil.rmtree(workshop.home)

    assert len(workshop.machines()) == 2
    workshop.wait_until_nothing_is_left(timeout_s=25)


def test_with_everything_of_ours_dead_a_pod_ends_itself_and_an_instance_is_reaped(
    workshop: Workshop, rented: EmulatedAccount
) -> None:
    workshop.start("run", write_rented_job(workshop, rented, hours=20 / 3600, lines=4000), "--run", "gone", "--yes")
    workshop.wait_for_answers("gone", 5)
    expires_at = read_expiry(workshop, "gone")
    kill(workshop, "life cycle", "dispatcher")
    shutil.rmtree(workshop.home)

    early = workshop.inv("reap", "--yes", LEASEHOLD_REAP_GRACE_S="0")
    assert (early.returncode, len(rented.live())) == (0, 1), early.stderr
    time.sleep(max(0.0, expires_at + 1 - time.time()))
    if rented.has_dead_man:
        workshop.wait_for("the pod to end itself", lambda: not rented.live(), 15)
        return
    shown = workshop.inv("reap", LEASEHOLD_REAP_GRACE_S="0")
    assert rented.live()[0] in shown.stdout
    within_grace = workshop.inv("reap", "--yes")
    assert (within_grace.returncode, len(rented.live())) == (0, 1)
    reaped = workshop.inv("reap", "--yes", LEASEHOLD_REAP_GRACE_S="0")

    assert reaped.returncode == 0, reaped.stderr
    assert rented.live() == []
    assert rented.list_keys() == []
    assert rented.find_harm() == ""


@pytest.mark.parametrize("by", ["token", "name"])
def test_a_token_or_a_machines_name_is_enough_to_release(workshop: Workshop, runpod: EmulatedAccount, by: str) -> None:
    workshop.start("run", write_rented_job(workshop, runpod, hours=1, lines=4000), "--run", "nameless", "--yes")
    workshop.wait_for_answers("nameless", 5)
    name = runpod.live()[0]
    kill(workshop, "life cycle", "dispatcher")
    shutil.rmtree(workshop.home)

    done = workshop.inv("release", name.split("-")[1] if by == "token" else name, "--force")

    assert done.returncode == 0, done.stderr
    assert "runpod" in done.stdout and "lambda is not asked" in done.stderr
    assert runpod.live() == []
    assert runpod.find_harm() == ""


def test_release_force_by_token_finds_the_live_run_that_it_belongs_to(workshop: Workshop) -> None:
    # Long enough that the batch is not over before the release has looked at it.
    run = workshop.start("run", str(workshop.write_job(lines=8000, max_tokens=200)), "--run", "tokened")
    workshop.wait_for_answers("tokened", 5)
    token = json.loads((workshop.run_dir("tokened") / "lease.json").read_bytes())["token"]

    release(workshop, token, "--force")

    assert run.wait(10) in (7, 130)
    assert workshop.status("tokened")["released"] == "verified"
    workshop.wait_until_nothing_is_left()
