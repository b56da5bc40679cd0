from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from schemas.errors import LeaseholdError, ReleaseError, SpecError
from schemas.status import Released, State, Status, Usage
from stacks.planning.plan import Plan, TakenOver, load_plan, save_plan
from stacks.planning.plan_view import render_plan
from stacks.process_mark import mark_process
from stacks.run_folder import RunFolder
from stacks.runs.run_processes import RunProcesses, save_processes
from stacks.verbs.resuming import find_earlier, raise_if_unready
from tests.stacks.run_files import make_job, plan_for


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path


def add_run(home: Path, name: str, *, live: bool = False) -> RunFolder:
    folder = RunFolder(home / "runs" / name)
    folder.make()
    if live:
        save_processes(folder, RunProcesses(lifecycle=mark_process(os.getpid())))
    return folder


def write_status(folder: RunFolder, state: State, released: Released, *, ended: bool) -> None:
    status = Status(run=folder.run, job="j", state=state, released=released, ended_at="2026-01-01" if ended else None)
    folder.status.write_bytes(msgspec.json.encode(status))


def make_resumed(answers: int, failures: int) -> Plan:
    taken = TakenOver(mode="resume", answers=answers, failures=failures, usage=Usage(input_tokens=7))
    return msgspec.structs.replace(plan_for(make_job()), resumes="first", taken_over=taken)


def test_a_run_that_ended_and_is_released_may_be_resumed(home: Path) -> None:
    folder = add_run(home, "old")
    write_status(folder, "cancelled", "verified", ended=True)

    raise_if_unready(folder)


def test_a_run_that_never_rented_anything_may_be_resumed(home: Path) -> None:
    raise_if_unready(add_run(home, "old"))


UNRELEASED: list[tuple[State, Released, bool]] = [
    ("cancelled", "unverified", True),
    ("in_progress", "no", False),
    ("finalizing", "verified", False),
]


@pytest.mark.parametrize(("state", "released", "ended"), UNRELEASED)
def test_a_run_that_is_not_released_is_refused_with_the_command(
    home: Path, state: State, released: Released, ended: bool
) -> None:
    folder = add_run(home, "old")
    write_status(folder, state, released, ended=ended)

    with pytest.raises(ReleaseError, match=r"\./inv release old"):
        raise_if_unready(folder)


def test_a_run_of_plain_pulumi_must_have_its_proof(home: Path) -> None:
    folder = add_run(home, "old")
    (folder.root / "intents.jsonl").write_bytes(b"{}\n")

    with pytest.raises(ReleaseError, match=r"\./inv release old"):
        raise_if_unready(folder)


def test_a_live_run_is_refused_with_what_to_do(home: Path) -> None:
    with pytest.raises(SpecError, match=r"\./inv follow old watches it, \./inv cancel old stops it"):
        raise_if_unready(add_run(home, "old", live=True))


def test_with_several_live_runs_one_must_be_named(home: Path) -> None:
    add_run(home, "one", live=True)
    add_run(home, "two", live=True)

    with pytest.raises(SpecError, match="2 runs are live"):
        find_earlier("", home)
    assert find_earlier("one", home).run == "one"


def test_a_run_that_does_not_exist_is_said(home: Path) -> None:
    with pytest.raises(LeaseholdError, match="there are no runs yet"):
        find_earlier("nobody", home)


def test_a_plan_tells_what_was_taken_over_and_counts_only_what_is_left(tmp_path: Path) -> None:
    plan = make_resumed(answers=40, failures=2)
    console = Console(width=200, record=True, file=(tmp_path / "shown").open("w"))
    with console.file:
        console.print(render_plan(plan))
    shown = console.export_text()

    assert plan.requests == plan.input.requests + 42
    assert f"{plan.input.requests:,} requests to" in shown
    assert f"left of {plan.requests:,}: 40 answers and 2 final failures are taken over from first" in shown


def test_what_was_taken_over_is_kept_with_the_plan(tmp_path: Path) -> None:
    plan = make_resumed(answers=3, failures=0)

    assert save_plan(plan, tmp_path / "plan.json") == plan == load_plan(tmp_path / "plan.json")


def test_a_plan_of_before_resuming_is_still_read(tmp_path: Path) -> None:
    fields = msgspec.to_builtins(plan_for(make_job()))
    del fields["resumes"], fields["taken_over"]
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(fields))

    assert load_plan(tmp_path / "plan.json").requests == plan_for(make_job()).input.requests
