"""Attempts are a file that only grows newer: what is saved comes back, and nothing saved means the first try."""

from __future__ import annotations

from pathlib import Path

from stacks.runs.attempts import Attempt, load_attempts, save_attempts


def test_without_a_file_every_machine_is_at_its_first_try(tmp_path: Path) -> None:
    assert load_attempts(tmp_path / "attempts.json") == {}
    assert Attempt() == Attempt(attempt=1, left_out=())


def test_attempts_come_back_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    saved = {0: Attempt(attempt=2, left_out=("runpod/H100/1//A",)), 17: Attempt(attempt=3)}

    save_attempts(path, {0: Attempt()})
    save_attempts(path, saved)

    assert load_attempts(path) == saved
    assert [each.name for each in tmp_path.iterdir()] == ["attempts.json"]
