"""Runs by their names: exact, by a unique start, the latest; and what is said when none is meant clearly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import SpecError
from stacks.run_folder import PROJECT, RunFolder, find_run, get_home, list_runs, open_run, prepare_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three runs; the middle one is the latest."""
    prepare_home(tmp_path)
    for number, run in enumerate(["tickets-1", "demo-2", "tickets-10"]):
        folder = RunFolder(tmp_path / "runs" / run)
        folder.make()
        folder.plan.write_text("{}")
        moment = 2000 if run == "demo-2" else 1000 + number
        os.utime(folder.plan, (moment, moment))
    return tmp_path


def test_the_home_is_what_the_environment_says_else_in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", "/srv/leasehold")
    assert get_home() == Path("/srv/leasehold")

    monkeypatch.setenv("LEASEHOLD_HOME", "")
    assert get_home() == PROJECT / ".leasehold"


def test_a_run_is_found_by_any_start_that_only_it_has(home: Path) -> None:
    assert find_run("d", home).run == "demo-2"
    assert find_run("tickets-10", home).run == "tickets-10"


def test_a_whole_name_wins_over_longer_ones_that_start_with_it(home: Path) -> None:
    assert find_run("tickets-1", home).run == "tickets-1"


def test_a_start_that_several_share_names_them(home: Path) -> None:
    with pytest.raises(SpecError, match="2 runs start with 'tick'") as caught:
        find_run("tick", home)

    assert "tickets-1" in caught.value.fix and "tickets-10" in caught.value.fix


def test_an_unknown_name_names_the_runs_there_are(home: Path) -> None:
    with pytest.raises(SpecError, match="no run is called 'other'") as caught:
        find_run("other", home)

    assert "demo-2" in caught.value.fix


def test_without_a_name_the_one_that_was_planned_last_is_meant(home: Path) -> None:
    assert find_run("", home).run == "demo-2"


def test_without_any_run_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no runs yet") as caught:
        find_run("", tmp_path)

    assert "./inv run" in caught.value.fix


def test_hidden_folders_and_files_are_no_runs(home: Path) -> None:
    (home / "runs" / ".trash").mkdir()
    (home / "runs" / "notes.txt").touch()

    assert sorted(each.run for each in list_runs(home)) == ["demo-2", "tickets-1", "tickets-10"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "a b", "a\n", "é", "x" * 81, ".hidden", "a\0"])
def test_what_cannot_be_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be the name of a run"):
        open_run(name, tmp_path)


@pytest.mark.parametrize("name", ["a", "A1", "0-x_y.z", "x" * 80])
def test_a_good_name_is_a_folder_below_the_home(name: str, tmp_path: Path) -> None:
    assert open_run(name, tmp_path).root == tmp_path / "runs" / name


def test_a_runs_folder_is_private(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "x")
    folder.make()
    folder.make()

    for path in (folder.root, folder.machines, folder.host_keys):
        assert path.stat().st_mode & 0o077 == 0


def test_the_passphrase_is_made_once_and_private(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    before = (tmp_path / "passphrase").read_bytes()
    prepare_home(tmp_path)

    assert (tmp_path / "passphrase").read_bytes() == before
    assert len(before) == 48
    assert (tmp_path / "passphrase").stat().st_mode & 0o077 == 0
