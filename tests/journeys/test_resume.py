"""Runs that go on from earlier ones, through the real engine: the new files are the whole, and nothing is done twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.journeys.workshop import Workshop, end_hard

pytestmark = [pytest.mark.engine, pytest.mark.timeout(200)]

SLOW = {"lines": 900, "max_tokens": 200}
ONE = {"replicas": 1, "candidates": [{"cloud": "local"}]}


def by_id(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Result lines by custom_id, each id once, without the id that the run gives its lines."""
    found = {line["custom_id"]: {key: value for key, value in line.items() if key != "id"} for line in lines}
    assert len(found) == len(lines)
    return found


def cancel_midway(workshop: Workshop, job: Path, run: str, *, answers: int = 40) -> None:
    """Run a job of SLOW lines and interrupt it; what is left is more than nothing."""
    process = workshop.start("run", str(job), "--run", run)
    workshop.wait_for_answers(run, answers)
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 130
    assert answers <= len(workshop.lines(run)) < SLOW["lines"]


def change_lines(path: Path, changes: dict[str, str]) -> None:
    """Put another text into the messages of some requests."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["custom_id"] in changes:
            line["body"]["messages"][0]["content"] = changes[line["custom_id"]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_cancelled_run_is_resumed_to_the_whole(workshop: Workshop) -> None:
    job = workshop.write_job(output="results", **SLOW)
    cancel_midway(workshop, job, "first")
    old = by_id(workshop.lines("first"))

    done = workshop.inv("resume", "first", "--new-run", "second", "--json", timeout_s=150)

    assert done.returncode == 0, done.stderr
    assert f"left of 900: {len(old)} answers are taken over from first" in done.stderr
    assert f"{900 - len(old)} requests to" in done.stderr
    status = json.loads(done.stdout)
    assert status["request_counts"] == {"total": 900, "completed": 900, "failed": 0}
    new = by_id(workshop.lines("second"))
    assert new.keys() == {f"id-{number}" for number in range(900)}
    assert {custom_id: new[custom_id] for custom_id in old} == old
    assert (
        by_id([json.loads(each) for each in (workshop.folder / "results/output.jsonl").read_text().splitlines()]) == new
    )
    assert not (workshop.run_dir("second") / "error.jsonl").exists()
    plan = json.loads((workshop.run_dir("second") / "plan.json").read_bytes())
    assert (plan["resumes"], plan["input"]["requests"]) == ("first", 900 - len(old))
    workshop.wait_until_nothing_is_left()


def test_a_resumed_run_that_was_killed_is_released_and_resumed_again(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    cancel_midway(workshop, job, "one")
    workshop.start("resume", "one", "--new-run", "two")
    workshop.wait_for_answers("two", len(workshop.lines("one")) + 40)
    progress = workshop.progress("two")
    assert progress is not None

    end_hard(workshop.lifecycle("two"))
    end_hard(psutil.Process(progress["pid"]))
    refused = workshop.inv("resume", "two")
    assert workshop.inv("release", "two", timeout_s=150).returncode == 0
    third = workshop.inv("resume", "two", "--new-run", "three", timeout_s=150)

    assert refused.returncode == 12
    assert "./inv release two" in refused.stderr
    assert third.returncode == 0, third.stderr
    assert len(workshop.lines("one")) + 40 <= len(by_id(workshop.lines("two"))) < 900
    assert by_id(workshop.lines("three")).keys() == {f"id-{number}" for number in range(900)}
    workshop.wait_until_nothing_is_left()


def test_another_job_takes_a_run_over_on_another_candidate(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    cancel_midway(workshop, job, "here")
    dear = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 1}]}
    other = workshop.write_job(
        "elsewhere", input="trial.jsonl", machines=dear, limits={"max_usd": 1, "max_hours": 1}, **SLOW
    )

    asked, said = workshop.answer("n", "resume", "here", "--job", str(other))
    done = workshop.inv("resume", "here", "--job", str(other), "--new-run", "there", timeout_s=150)

    assert asked == 5, said
    assert done.returncode == 0, done.stderr
    assert len(by_id(workshop.lines("there"))) == 900
    receipt = json.loads((workshop.run_dir("there") / "receipt.json").read_bytes())
    assert receipt["usd"] > 0
    assert sorted(path.name for path in (workshop.home / "runs").iterdir()) == ["here", "there"]
    workshop.wait_until_nothing_is_left()


def test_a_retry_sends_only_what_failed_and_takes_corrected_lines(workshop: Workshop) -> None:
    job = workshop.write_job(machines=ONE)
    change_lines(workshop.folder / "trial.jsonl", {"id-7": "word " * 9000, "id-9": "word " * 9000})
    first = workshop.inv("run", str(job), "--run", "failing")
    old = by_id(workshop.lines("failing"))
    change_lines(workshop.folder / "trial.jsonl", {"id-7": "A short one."})

    nothing = workshop.inv("resume", "failing")
    done = workshop.inv("retry", "failing", "--new-run", "again")

    assert (first.returncode, len(old)) == (10, 58), first.stderr
    assert nothing.returncode == 2
    assert "trial.jsonl:8: custom_id 'id-7' has another body" in nothing.stderr
    assert done.returncode == 10, done.stderr
    assert "2 requests to" in done.stderr
    new = by_id(workshop.lines("again"))
    assert new.keys() == old.keys() | {"id-7"}
    assert {custom_id: new[custom_id] for custom_id in old} == old
    assert [line["custom_id"] for line in workshop.lines("again", "error.jsonl")] == ["id-9"]
    workshop.wait_until_nothing_is_left()


def test_with_everything_done_nothing_is_rented(workshop: Workshop) -> None:
    job = workshop.write_job(lines=20, machines=ONE)
    assert workshop.inv("run", str(job), "--run", "whole").returncode == 0

    resumed = workshop.inv("resume", "whole", "--json")
    retried = workshop.inv("retry")

    assert (resumed.returncode, retried.returncode) == (0, 0)
    assert "nothing is left, nothing was rented" in resumed.stderr
    assert json.loads(resumed.stdout)["run"] == "whole"
    assert "each of the 20 requests is answered" in retried.stderr
    assert [path.name for path in (workshop.home / "runs").iterdir()] == ["whole"]
    workshop.wait_until_nothing_is_left()


def test_a_trial_grows_into_the_whole_and_a_changed_body_is_exit_2(workshop: Workshop) -> None:
    job = workshop.write_job(machines=ONE)
    assert workshop.inv("run", str(job), "--run", "small", "--limit", "20").returncode == 0

    bounded = workshop.inv("resume", "small")
    change_lines(workshop.folder / "trial.jsonl", {"id-3": "Something else."})
    changed = workshop.inv("resume", "small", "--limit", "0")
    workshop.write_input(workshop.folder / "trial.jsonl", lines=60, max_tokens=8)
    whole = workshop.inv("resume", "small", "--limit", "0", "--new-run", "large")

    assert bounded.returncode == 0
    assert changed.returncode == 2
    assert "trial.jsonl:4: custom_id 'id-3' has another body than in run small" in changed.stderr
    assert "Traceback" not in changed.stderr
    assert whole.returncode == 0, whole.stderr
    assert by_id(workshop.lines("large")).keys() == {f"id-{number}" for number in range(60)}
    assert sorted(path.name for path in (workshop.home / "runs").iterdir()) == ["large", "small"]
    workshop.wait_until_nothing_is_left()


def test_a_run_at_work_is_not_resumed(workshop: Workshop) -> None:
    job = workshop.write_job(**SLOW)
    workshop.start("run", str(job), "--run", "busy")
    workshop.wait_for_answers("busy", 5)

    done = workshop.inv("resume", "busy")

    assert done.returncode == 2
    assert "./inv follow busy" in done.stderr and "./inv cancel busy" in done.stderr
    assert workshop.inv("cancel", "busy").returncode == 0
    workshop.wait_until_nothing_is_left()
