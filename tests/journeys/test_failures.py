"""What goes wrong on the way, through the real engine: each ends with its exit code, its words, and nothing left."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.journeys.workshop import Workshop, end_hard

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SLOW = {"lines": 400, "max_tokens": 200}


def test_an_engine_that_ends_at_its_start_is_exit_6_with_its_log(workshop: Workshop) -> None:
    deploy = workshop.tiny_deployment(serve_args=["--no-such-flag"])
    job = workshop.write_job(template=None, deploy=deploy)

    done = workshop.inv("run", str(job), "--run", "broken")

    assert done.returncode == 6, done.stderr
    assert "no-such-flag" in done.stderr
    assert "Traceback" not in done.stderr
    status = workshop.status("broken")
    assert (status["state"], status["released"]) == ("submit_failed", "verified")
    workshop.wait_until_nothing_is_left()


def test_one_of_two_machines_killed_at_work_loses_nothing(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    run = workshop.start("run", str(job), "--run", "half")
    workshop.wait_for_answers("half", 20)

    machine = workshop.machines()[0]
    workshop.kill_machine(machine)

    assert run.wait(200) == 0
    ids = [line["custom_id"] for line in workshop.lines("half")]
    assert sorted(ids) == sorted(f"id-{n}" for n in range(400))
    assert workshop.status("half")["released"] == "verified"
    assert "died" in workshop.events("half")
    workshop.wait_until_nothing_is_left()


def test_the_dispatcher_killed_twice_goes_on_and_every_line_is_there_once(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    run = workshop.start("run", str(job), "--run", "twice")
    for answers in (30, 120):
        workshop.wait_for_answers("twice", answers)
        progress = workshop.progress("twice")
        assert progress is not None
        os.kill(progress["pid"], signal.SIGKILL)

    assert run.wait(200) == 0
    ids = [line["custom_id"] for line in workshop.lines("twice")]
    assert sorted(ids) == sorted(f"id-{n}" for n in range(400))
    assert workshop.events("twice").count("dispatcher_restarted") == 2
    workshop.wait_until_nothing_is_left()


def test_a_killed_follower_loses_nothing(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    run = workshop.start("run", str(job), "--run", "alone")
    workshop.wait_for_answers("alone", 10)

    run.kill()
    run.wait(10)

    status = workshop.wait_for_end("alone", 200)
    assert (status["exit_code"], status["released"]) == (0, "verified")
    assert len(workshop.lines("alone")) == 400
    workshop.wait_until_nothing_is_left()


def test_a_follower_that_is_interrupted_says_that_the_run_goes_on_and_release_ends_it(workshop: Workshop) -> None:
    # More than is answered while the other commands start, on any computer.
    job = workshop.write_job(lines=3000, max_tokens=200)
    workshop.inv("run", str(job), "--run", "watched", "--detach")
    workshop.wait_for_answers("watched", 10)

    follower = workshop.start("follow", "watched")
    workshop.wait_for(
        "the follower", lambda: "requests are being answered" in (workshop.folder / "typed.log").read_text()
    )
    os.killpg(follower.pid, signal.SIGINT)
    follower_code = follower.wait(20)
    state = workshop.status("watched")["state"]
    released = workshop.inv("release", "watched")
    again = workshop.inv("release", "watched")

    assert (follower_code, state) == (130, "in_progress")
    assert "you have stopped watching; the run goes on" in (workshop.folder / "typed.log").read_text()
    assert (released.returncode, again.returncode) == (0, 0)
    assert released.stdout == "watched: ended, released, verified: no machine of it is left\n"
    assert again.stdout == "watched: released and verified already\n"


def test_a_closed_terminal_loses_nothing(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    run = workshop.start("run", str(job), "--run", "closed")
    workshop.wait_for_answers("closed", 10)

    os.killpg(run.pid, signal.SIGHUP)
    run.wait(10)

    assert workshop.wait_for_end("closed", 200)["exit_code"] == 0
    workshop.wait_until_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_finished_and_releases(workshop: Workshop, number: signal.Signals) -> None:
    job = workshop.write_job(**SLOW)
    run = workshop.start("run", str(job), "--run", "stopped")
    workshop.wait_for_answers("stopped", 20)

    run.send_signal(number)

    assert run.wait(150) == 130
    status = workshop.status("stopped")
    assert (status["state"], status["released"]) == ("cancelled", "verified")
    answered = {line["custom_id"] for line in workshop.lines("stopped")}
    rest = workshop.lines("stopped", "error.jsonl")
    assert len(answered) >= 20
    assert {line["error"]["code"] for line in rest} == {"batch_cancelled"}
    assert len(answered) + len(rest) == 400
    workshop.wait_until_nothing_is_left()


def test_an_interrupt_while_machines_boot_ends_soon(workshop: Workshop) -> None:
    job = workshop.write_job()
    run = workshop.start("run", str(job), "--run", "early", LEASEHOLD_LOCAL_FAULT="hang")
    workshop.wait_for("two machines", lambda: len(workshop.machines()) == 2)

    run.send_signal(signal.SIGINT)

    assert run.wait(150) == 130
    assert workshop.status("early")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_cancel_from_another_terminal_is_exit_7(workshop: Workshop) -> None:
    # More than is answered while the other command starts, on any computer.
    job = workshop.write_job(lines=3000, max_tokens=200)
    run = workshop.start("run", str(job), "--run", "elsewhere")
    workshop.wait_for_answers("elsewhere", 10)

    cancelled = workshop.inv("cancel")

    assert cancelled.returncode == 0, cancelled.stderr
    assert run.wait(30) == 7
    workshop.wait_until_nothing_is_left()


def test_a_killed_life_cycle_is_released_by_release_despite_the_stale_lock(workshop: Workshop) -> None:
    # So much work that the dispatcher, at its end, does not do the release first.
    job = workshop.write_job(lines=3000, max_tokens=200)
    run = workshop.start("run", str(job), "--run", "orphan", LEASEHOLD_LOCAL_FAULT="hang@1")
    workshop.wait_for("pulumi at work on two machines", lambda: len(workshop.machines()) == 2)
    workshop.wait_for_answers("orphan", 1)
    pulumi = json.loads((workshop.run_dir("orphan") / "lifecycle.json").read_bytes())["pulumi"]["pid"]

    end_hard(workshop.lifecycle("orphan"))
    os.kill(pulumi, signal.SIGKILL)
    assert run.wait(30) == 1
    released = workshop.inv("release", "orphan")

    assert released.returncode == 0, released.stderr
    assert "verified" in released.stdout
    assert "lock" in released.stderr
    assert workshop.status("orphan")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_release_force_needs_neither_lock_nor_state(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    workshop.start("run", str(job), "--run", "forced")
    workshop.wait_for_answers("forced", 10)
    end_hard(workshop.lifecycle("forced"))
    for path in (workshop.home / "state").rglob("forced*.json"):
        path.unlink()

    released = workshop.inv("release", "forced", "--force")

    assert released.returncode == 0, released.stderr
    workshop.wait_until_nothing_is_left()


def test_a_machine_with_another_host_key_is_refused_and_released(workshop: Workshop) -> None:
    job = workshop.write_job(machines={"replicas": 1, "candidates": [{"cloud": "local"}]})

    done = workshop.inv("run", str(job), "--run", "stranger", LEASEHOLD_LOCAL_FAULT="host-key")

    assert done.returncode == 4, done.stderr
    assert "another host key" in done.stderr
    assert workshop.status("stranger")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_no_capacity_is_exit_11_and_says_what_was_tried(workshop: Workshop) -> None:
    job = workshop.write_job()

    done = workshop.inv("run", str(job), "--run", "full", LEASEHOLD_LOCAL_FAULT="no-capacity")

    assert done.returncode == 11, done.stderr
    assert "local" in done.stderr
    assert workshop.status("full")["state"] == "resource_failed"
    workshop.wait_until_nothing_is_left()


def test_one_machine_that_cannot_be_had_does_not_stop_the_others(workshop: Workshop) -> None:
    job = workshop.write_job()

    done = workshop.inv("run", str(job), "--run", "one", LEASEHOLD_LOCAL_FAULT="no-capacity@1")

    assert done.returncode == 0, done.stderr
    assert len(workshop.lines("one")) == 60
    workshop.wait_until_nothing_is_left()


def test_an_expired_lease_keeps_what_is_finished(workshop: Workshop) -> None:
    job = workshop.write_job(lines=3000, max_tokens=200, limits={"max_hours": 15 / 3600})

    done = workshop.inv("run", str(job), "--run", "late")

    assert done.returncode == 8, done.stderr
    rest = workshop.lines("late", "error.jsonl")
    assert {line["error"]["code"] for line in rest} == {"batch_expired"}
    assert len(workshop.lines("late")) + len(rest) == 3000
    assert workshop.status("late")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_a_used_up_budget_stops_the_run(workshop: Workshop) -> None:
    dear = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 3600}]}
    job = workshop.write_job(lines=6000, max_tokens=24, machines=dear, limits={"max_usd": 66, "max_hours": 1})

    done = workshop.inv("run", str(job), "--run", "broke", "--yes", timeout_s=120)

    assert done.returncode == 8, done.stderr
    assert {line["error"]["code"] for line in workshop.lines("broke", "error.jsonl")} == {"budget_exceeded"}
    workshop.wait_until_nothing_is_left()


def test_machines_that_never_work_cost_no_more_than_boot_usd(workshop: Workshop) -> None:
    dear = {"replicas": 2, "candidates": [{"cloud": "local", "price_usd_per_hour": 3600}]}
    limits = {"max_usd": 500, "max_hours": 1, "boot_usd": 8}
    job = workshop.write_job(machines=dear, limits=limits)

    done = workshop.inv("run", str(job), "--run", "stuck", "--yes", LEASEHOLD_LOCAL_FAULT="hang")

    assert done.returncode == 4, done.stderr
    assert "boot_usd_used_up" in workshop.events("stuck")
    receipt = json.loads((workshop.run_dir("stuck") / "receipt.json").read_bytes())
    assert 8 <= receipt["usd"] < 30
    assert workshop.status("stuck")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_a_machine_that_hangs_in_its_boot_holds_back_none_of_the_others(workshop: Workshop) -> None:
    machines = {"replicas": 10, "min_replicas": 1, "candidates": [{"cloud": "local"}]}
    job = workshop.write_job(lines=200, machines=machines)
    hanging = ",".join(f"hang@{index}" for index in range(9))

    done = workshop.inv("run", str(job), "--run", "ninth", LEASEHOLD_LOCAL_FAULT=hanging)

    assert done.returncode == 0, done.stderr
    assert len(workshop.lines("ninth")) == 200
    workshop.wait_until_nothing_is_left()


def test_a_dispatcher_that_dies_at_its_start_ends_the_run_with_its_log(workshop: Workshop) -> None:
    job = workshop.write_job(machines={"replicas": 1, "candidates": [{"cloud": "local"}]})
    # What the dispatcher reads first is made unreadable as soon as it is there.
    run = workshop.start("run", str(job), "--run", "mute")
    manifest = workshop.run_dir("mute") / "manifest.json"
    workshop.wait_for("the plan", lambda: (workshop.run_dir("mute") / "plan.json").exists())
    manifest.mkdir()

    code = run.wait(200)

    assert code != 0
    assert workshop.status("mute")["released"] == "verified"
    workshop.wait_until_nothing_is_left()
