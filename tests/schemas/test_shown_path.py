"""Messages name files as people would type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.shown_path import show_path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("{here}/jobs/a.yaml", "jobs/a.yaml"),
        ("{here}", "."),
        ("jobs/a.yaml", "jobs/a.yaml"),
        ("{here}-other/a.yaml", "{here}-other/a.yaml"),
        ("/elsewhere/a.yaml", "/elsewhere/a.yaml"),
        ("s3://bucket/a.yaml", "s3://bucket/a.yaml"),
        ("", ""),
    ],
)
def test_a_file_below_this_folder_is_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)

    assert show_path(path.format(here=tmp_path)) == shown.format(here=tmp_path)


def test_where_the_folder_is_gone_the_whole_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert show_path("/elsewhere/a.yaml") == "/elsewhere/a.yaml"
