"""A release that goes wrong in a way nobody has thought of still says so: the life cycle has its last words to write then."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from schemas.events import read_events
from schemas.job import Candidate
from stacks.planning.plan import save_plan
from stacks.releasing.release import release_run
from tests.stacks.run_files import make_folder, make_h100, make_job, make_lease, plan_for


def test_a_release_whose_code_cannot_be_loaded_any_more_is_told_and_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkout was updated under the life cycle, or its packages are being installed anew."""
    folder = make_folder(tmp_path)
    save_plan(plan_for(make_job(candidates=[Candidate(cloud="runpod", gpu="H100")]), make_h100()), folder.plan)
    make_lease(folder)
    monkeypatch.setitem(sys.modules, "providers.runpod.runpod", None)

    outcome = release_run(folder, tmp_path, os.environ, force=True)

    assert not outcome.verified
    assert "ModuleNotFoundError: import of providers.runpod.runpod halted" in outcome.message
    assert f"./inv release {folder.run}" in outcome.message
    assert [event.event for event, _ in read_events(folder.events)][-1] == "release_failed"
    assert "Traceback" in capsys.readouterr().err
