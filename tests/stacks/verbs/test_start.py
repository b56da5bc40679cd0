"""Starting a run: its id, its plan, its folder; what is wrong is told before anything is written."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from schemas.errors import SpecError
from schemas.job import load_job
from stacks.planning.plan import load_plan, save_plan
from stacks.process_mark import mark_process
from stacks.run_folder import PROJECT, get_home, open_run
from stacks.runs.run_processes import RunProcesses, save_processes
from stacks.verbs.start import launch_run, make_run_id, prepare_run
from tests.stacks.run_files import make_job, plan_for

DEMO = PROJECT / "jobs" / "demo.yaml"


def make_environment() -> dict[str, str]:
    """One in which the life cycle's process ends at once, with a word in its log: Python finds nothing of its own."""
    return {"PATH": os.environ["PATH"], "PYTHONHOME": "/nowhere"}


def test_a_runs_id_is_job_date_and_something_random() -> None:
    ids = {make_run_id("tickets") for _ in range(50)}

    assert len(ids) == 50
    assert all(re.fullmatch(r"tickets-\d{6}-[a-z0-9]{6}", each) for each in ids)


def test_a_plan_is_made_and_nothing_is_written() -> None:
    plan = prepare_run(DEMO, line_limit=5)

    assert plan.run.startswith("demo-")
    assert (plan.input.requests, plan.line_limit, plan.job.machines.replicas) == (5, 5, 2)
    assert not get_home().exists()


def test_a_run_may_be_given_a_name() -> None:
    assert prepare_run(DEMO, run="my-run", line_limit=1).run == "my-run"


def test_a_run_at_work_that_writes_to_the_same_folder_is_told_and_one_that_has_ended_is_not(tmp_path: Path) -> None:
    text = DEMO.read_text().replace("data/demo.jsonl", str(DEMO.parent / "data" / "demo.jsonl"))
    job = tmp_path / "job.yaml"
    job.write_text(f"{text}\noutput: results/\n")
    for name, pid in (("at-work", os.getpid()), ("ended", None), ("elsewhere", os.getpid())):
        folder = open_run(name, get_home())
        folder.make()
        output = tmp_path / ("other" if name == "elsewhere" else "results")
        save_plan(plan_for(make_job(output=str(output)), run=name), folder.plan)
        if pid is not None:
            save_processes(folder, RunProcesses(lifecycle=mark_process(pid)))
    told: list[str] = []

    prepare_run(job, line_limit=1, on_notice=told.append)

    assert [each.split(" and ")[0] for each in told] == ["at-work is at work"]
    assert prepare_run(job, line_limit=1, will_write=False, on_notice=told.append).job.output == str(
        tmp_path / "results"
    )
    assert len(told) == 1


@pytest.mark.parametrize("name", ["../up", "a b", "-x", "x" * 81, "a/b"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="cannot be a"):
        prepare_run(DEMO, run=name, line_limit=1)


def test_a_name_that_is_taken_is_refused_with_its_place() -> None:
    open_run("taken", get_home()).make()

    with pytest.raises(SpecError, match="there is a run taken already") as caught:
        prepare_run(DEMO, run="taken", line_limit=1)

    assert caught.value.where.endswith("runs/taken")


def test_a_name_that_is_taken_is_refused_before_the_input_is_read_or_a_cloud_is_asked(tmp_path: Path) -> None:
    open_run("taken", get_home()).make()
    job = tmp_path / "job.yaml"
    job.write_text("not: a job")

    with pytest.raises(SpecError, match="there is a run taken already"):
        prepare_run(job, run="taken")


def test_a_missing_job_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such job file") as caught:
        prepare_run(tmp_path / "none.yaml")

    assert f"./inv new > {tmp_path / 'none.yaml'}" in caught.value.fix


def test_a_folder_is_no_job_and_the_jobs_in_it_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").touch()
    (tmp_path / "a.yaml").touch()

    with pytest.raises(SpecError, match="this is a folder") as caught:
        prepare_run(tmp_path)

    assert str(tmp_path / "a.yaml") in caught.value.fix


def test_an_address_that_nobody_can_be_told_at_stops_a_plan_before_its_input_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_NOTIFY_WEBHOOK", "http://hooks.example.org/hidden-part")
    job = tmp_path / "job.yaml"
    job.write_text(DEMO.read_text().replace("data/", f"{DEMO.parent}/data/"))
    (tmp_path / "input.jsonl").write_text("no batch")
    job.write_text(re.sub(r"(?m)^input: .*$", "input: input.jsonl", job.read_text()))

    with pytest.raises(SpecError) as caught:
        prepare_run(job)

    assert [(each.file, each.code) for each in caught.value.problems] == [
        ("LEASEHOLD_NOTIFY_WEBHOOK", "bad_notify_address")
    ]
    assert "hidden-part" not in str(caught.value)


def test_an_address_that_is_not_set_here_is_said_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.yaml"
    text = re.sub(r"(?m)^input: .*$", f"input: {load_job(DEMO).job.input}", DEMO.read_text())
    job.write_text(f"{text}\nnotify: [{{type: slack, url: env:NOT_SET_ANYWHERE}}]\n")

    plan = prepare_run(job, line_limit=1)

    assert plan.input.requests == 1
    assert "NOT_SET_ANYWHERE is not set" in capsys.readouterr().err


@pytest.mark.wire
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_launching_writes_the_plan_and_starts_a_process_that_logs_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path))
    plan = plan_for(make_job(), now=time.time())

    folder = launch_run(plan, make_environment(), keep=False, detached=True)

    assert load_plan(folder.plan) == plan
    assert folder.root.stat().st_mode & 0o077 == 0
    deadline = time.monotonic() + 20
    while "Fatal Python error" not in folder.lifecycle_log.read_text():
        assert time.monotonic() < deadline, folder.lifecycle_log.read_text()
        time.sleep(0.02)


def test_of_two_launches_of_one_name_the_second_is_refused() -> None:
    plan = plan_for(make_job())
    open_run(plan.run, get_home()).make()

    with pytest.raises(SpecError, match=f"there is a run {plan.run} already"):
        launch_run(plan, make_environment(), keep=False, detached=True)
