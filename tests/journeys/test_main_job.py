"""The main job through the command line: the real Pulumi engine, real SSH, a real engine, the real dispatcher."""

from __future__ import annotations

import json

import pytest

from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_the_demo_answers_every_request_and_leaves_nothing_behind(workshop: Workshop) -> None:
    done = workshop.inv("demo", "--json")

    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["state"] == "completed"
    assert status["released"] == "verified"
    assert status["request_counts"] == {"total": 300, "completed": 300, "failed": 0}
    assert [machine["state"] for machine in status["machines"]] == ["gone", "gone"]
    lines = workshop.lines(status["run"])
    assert len({line["custom_id"] for line in lines}) == len(lines) == 300
    assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in lines)
    workshop.wait_until_nothing_is_left()


def test_a_run_copies_its_results_to_the_folder_the_job_names_and_writes_a_receipt(workshop: Workshop) -> None:
    priced = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 3.6}]}
    job = workshop.write_job(output="answers", machines=priced, limits={"max_usd": 5, "max_hours": 1})

    done = workshop.inv("run", str(job), "--run", "first", "--yes")

    assert done.returncode == 0, done.stderr
    assert len((workshop.folder / "answers" / "output.jsonl").read_text().splitlines()) == 60
    receipt = json.loads(workshop.inv("receipt", "first", "--json").stdout)
    (machine,) = receipt["machines"]
    assert machine["usd"] == pytest.approx(machine["seconds"] / 3600 * 3.6, abs=0.001)
    assert machine["proven_gone"] and receipt["released"]
    assert receipt["requests_completed"] == 60
    workshop.wait_until_nothing_is_left()


def test_limit_runs_only_the_first_lines(workshop: Workshop) -> None:
    job = workshop.write_job()

    done = workshop.inv("run", str(job), "--run", "few", "--limit", "7")

    assert done.returncode == 0, done.stderr
    assert sorted(line["custom_id"] for line in workshop.lines("few")) == sorted(f"id-{n}" for n in range(7))


def test_detach_returns_at_once_and_follow_shows_the_end(workshop: Workshop) -> None:
    job = workshop.write_job()

    started = workshop.inv("run", str(job), "--detach")
    run = started.stdout.strip()
    followed = workshop.inv("follow", run)

    assert started.returncode == 0
    assert followed.returncode == 0, followed.stderr
    assert "60 of 60 requests answered" in followed.stderr
    listed = json.loads(workshop.inv("status", "--json").stdout)
    assert [(each["run"], each["state"]) for each in listed] == [(run, "completed")]


def test_two_runs_with_one_id_are_refused_and_the_first_goes_on(workshop: Workshop) -> None:
    job = workshop.write_job()
    first = workshop.start("run", str(job), "--run", "same")
    workshop.wait_for("the first run", lambda: workshop.run_dir("same").exists())

    second = workshop.inv("run", str(job), "--run", "same")

    assert second.returncode == 2
    assert "there is a run same already" in second.stderr
    assert first.wait(60) == 0


def test_embeddings_go_the_same_way(workshop: Workshop) -> None:
    done = workshop.inv("run", str(workshop.root_job("embeddings.yaml")), "--run", "vectors")

    assert done.returncode == 0, done.stderr
    lines = workshop.lines("vectors")
    assert lines and all(line["response"]["body"]["data"][0]["embedding"] for line in lines)
    workshop.wait_until_nothing_is_left()
