"""Home folders in paths that a person wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.home_path import expand_home


def test_a_tilde_is_the_home_folder_and_one_of_nobody_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")

    assert expand_home("~/a.yaml") == Path("/homes/me/a.yaml")
    assert expand_home("~no-such-user-here/a.yaml") == Path("~no-such-user-here/a.yaml")
    assert expand_home("a.yaml") == Path("a.yaml")
