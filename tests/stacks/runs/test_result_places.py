"""Results are named where the job wanted them, with how much there is; stale copies are not taken for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stacks.planning.plan import save_plan
from stacks.run_folder import RunFolder, get_home
from stacks.runs.collecting import collect_results
from stacks.runs.result_places import list_results
from stacks.verbs.reading import report_results
from tests.stacks.run_files import make_folder, make_job, plan_for


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run whose job wants its results in `wanted`, and has got them there."""
    folder = make_folder(get_home() / "runs")
    plan = plan_for(make_job(output=str(tmp_path / "wanted")))
    save_plan(plan, folder.plan)
    folder.output.write_text('{"a": 1}\n{"b": 2}\n')
    folder.errors.write_text('{"c": 3}\n')
    collect_results(folder, plan.job)
    return folder


def test_results_are_named_where_the_job_wanted_them(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_results("tickets", "")

    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(tmp_path / "wanted" / name) for name in ("output.jsonl", "error.jsonl")]
    assert shown.err.splitlines() == ["  2 answers, 18 B", "  1 without an answer, 9 B"]


def test_as_data_they_have_their_counts_sizes_and_the_runs_folder(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_results("tickets", "", as_json=True)

    assert json.loads(capsys.readouterr().out) == {
        "run": "tickets-1",
        "output_file": str(tmp_path / "wanted" / "output.jsonl"),
        "error_file": str(tmp_path / "wanted" / "error.jsonl"),
        "output_lines": 2,
        "error_lines": 1,
        "output_bytes": 18,
        "error_bytes": 9,
        "folder": str(folder.root),
    }


def test_a_copy_that_a_later_run_has_replaced_is_not_this_runs(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "wanted" / "output.jsonl").write_text("another run's\n")
    (tmp_path / "wanted" / "error.jsonl").unlink()

    assert [each.place for each in list_results(folder)] == [str(folder.output), str(folder.errors)]


def test_a_run_without_output_or_plan_has_them_in_its_folder(folder: RunFolder) -> None:
    folder.plan.unlink()

    assert [each.place for each in list_results(folder)] == [str(folder.output), str(folder.errors)]


def test_copies_are_named_where_they_went(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_results("tickets", str(tmp_path / "more"))

    assert (tmp_path / "more" / "output.jsonl").read_bytes() == folder.output.read_bytes()
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "more" / "output.jsonl")
