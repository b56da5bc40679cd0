"""Several jobs in one command, through the real engine: one table, one budget, one exit code."""

from __future__ import annotations

import json
import signal

import pytest

from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]
LOCAL = {"replicas": 1, "min_replicas": 1, "candidates": [{"cloud": "local"}]}


def test_one_that_fails_does_not_stop_the_others_and_the_same_job_twice_is_two_runs(workshop: Workshop) -> None:
    good = workshop.write_job("good", lines=12, machines=LOCAL)
    dies = workshop.write_job(
        "dies",
        lines=12,
        machines=LOCAL,
        template=None,
        deploy=workshop.tiny_deployment(serve_args=["--no-such-flag"]),
    )

    done = workshop.inv("run", str(good), str(dies), str(good), "--parallel", "2", "--json")

    results = json.loads(done.stdout)
    assert [(each["state"], each["exit_code"], each["released"]) for each in results] == [
        ("completed", 0, "verified"),
        ("submit_failed", 6, "verified"),
        ("completed", 0, "verified"),
    ]
    assert done.returncode == 6
    assert len({each["run"] for each in results}) == 3
    for result in (results[0], results[2]):
        assert sorted(line["custom_id"] for line in workshop.lines(result["run"])) == sorted(
            f"id-{n}" for n in range(12)
        )
    assert "3 jobs" in done.stderr
    workshop.wait_until_nothing_is_left()


def test_a_job_that_the_budget_cannot_pay_is_not_started(workshop: Workshop) -> None:
    priced = {"replicas": 1, "min_replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 1.0}]}
    first, second = (
        workshop.write_job(name, lines=8, machines=priced, limits={"max_hours": 1, "max_usd": 2}) for name in "ab"
    )

    done = workshop.inv("run", str(first), str(second), "--max-usd", "2", "--json")

    results = json.loads(done.stdout)
    assert [(each["state"], each["exit_code"]) for each in results] == [("completed", 0), ("not started", 5)]
    assert done.returncode == 5
    assert f"{second}  not started: it may cost 2.00 USD and " in done.stderr
    assert f"{results[0]['run']}  starting\n" in done.stderr
    assert "nobody to ask: going on within the jobs' own limits" in done.stderr
    assert [path.name for path in (workshop.home / "runs").iterdir()] == [results[0]["run"]]
    workshop.wait_until_nothing_is_left()


def test_an_interrupt_cancels_what_runs_and_starts_nothing_more(workshop: Workshop) -> None:
    jobs = [workshop.write_job(name, lines=5000, max_tokens=64, machines=LOCAL) for name in "ab"]

    command = workshop.start("run", *map(str, jobs))
    running = workshop.wait_for("a run", lambda: list((workshop.home / "runs").glob("a-*/progress.json")))
    workshop.wait_for_answers(running[0].parent.name, 1)
    command.send_signal(signal.SIGINT)

    assert command.wait(120) == 130
    assert [path.name for path in (workshop.home / "runs").iterdir()] == [running[0].parent.name]
    status = workshop.status(running[0].parent.name)
    assert (status["state"], status["released"]) == ("cancelled", "verified")
    workshop.wait_until_nothing_is_left()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--run", "x"], "--run is for one job"),
        (["--detach"], "--detach is for one job"),
        (["--output", "out"], "--output is for one job"),
        (["--parallel", "0"], "--parallel takes a number of jobs from 1 on"),
        (["--max-usd", "-1"], "--max-usd takes an amount of USD above 0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(workshop: Workshop, flags: list[str], words: str) -> None:
    job = workshop.write_job(lines=2)

    done = workshop.inv("run", str(job), str(job), *flags)

    assert done.returncode == 2
    assert words in done.stderr
    assert not (workshop.home / "runs").exists()


def test_when_files_are_wrong_all_of_them_are_told_and_nothing_starts(workshop: Workshop) -> None:
    good = workshop.write_job("good", lines=2)
    bad, worse = (
        workshop.write_job("bad", endpoint="/v1/nonsense"),
        workshop.write_job("worse", machines={"replicas": 0}),
    )

    done = workshop.inv("run", str(good), str(bad), str(worse))

    assert done.returncode == 2
    assert "2 of 3 jobs cannot be run; nothing was started" in done.stderr
    assert "bad.yaml" in done.stderr
    assert "worse.yaml" in done.stderr
    assert not (workshop.home / "runs").exists()
