from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stacks.run_folder import RunFolder
from stacks.runs.collecting import collect_results
from tests.stacks.run_files import make_folder, make_job


def make_run(parent: Path, run: str, *, errors: str = "") -> RunFolder:
    folder = make_folder(parent, run)
    folder.output.write_text(f"{run}\n" * 3)
    if errors:
        folder.errors.write_text(errors)
    return folder


def test_results_replace_those_of_an_earlier_run(tmp_path: Path) -> None:
    job = make_job(output=str(tmp_path / "out"))

    collect_results(make_run(tmp_path, "one", errors="e\n"), job)
    collect_results(make_run(tmp_path, "other"), job)

    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"output.jsonl": "other\n" * 3}


def test_two_runs_that_end_at_once_with_one_folder_leave_the_whole_results_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(output=str(tmp_path / "out"))
    first, second = make_run(tmp_path, "first"), make_run(tmp_path, "second")
    copy = shutil.copyfile

    def copy_and_be_overtaken(source: Path, target: Path) -> None:
        copy(source, target)
        monkeypatch.setattr("shutil.copyfile", copy)
        collect_results(second, job)

    monkeypatch.setattr("shutil.copyfile", copy_and_be_overtaken)
    collect_results(first, job)

    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"output.jsonl": "first\n" * 3}
