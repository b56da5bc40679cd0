"""A batch so large that writing what was not run takes longer than machines may wait: it is written once they are gone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from runtime.dispatcher.manifest import Manifest
from stacks.lifecycle.lifecycle import Lifecycle
from stacks.planning.plan import save_plan
from stacks.run_folder import RunFolder
from stacks.runs.batch_stop import finish_results, stop_dispatcher
from stacks.runs.outcome import judge_stop
from tests.stacks.run_files import make_folder, make_job, plan_for

pytestmark = [pytest.mark.wire, pytest.mark.timeout(60)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run whose dispatcher was killed, and a computer on which no stop gets to its end in time."""
    monkeypatch.setattr("stacks.runs.batch_stop._TIMEOUT_S", 0.01)
    made = make_folder(tmp_path / "home" / "runs")
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    lines = [
        {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(3)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = Manifest(
        run=made.run,
        input=str(tmp_path / "in.jsonl"),
        output_dir=str(made.root),
        endpoint="/v1/chat/completions",
        model="m",
    )
    made.manifest.write_bytes(msgspec.json.encode(manifest))
    return made


def test_what_a_stop_had_no_time_for_is_written_afterwards(folder: RunFolder) -> None:
    stop_dispatcher(folder, "budget_exceeded")
    assert not folder.output.exists()

    finish_results(folder, "budget_exceeded")

    assert folder.output.read_bytes() == b""
    errors = [json.loads(line) for line in folder.errors.read_bytes().splitlines()]
    assert [(each["custom_id"], each["error"]["code"]) for each in errors] == [
        (f"id-{number}", "budget_exceeded") for number in range(3)
    ]


def test_a_life_cycle_that_stopped_its_batch_has_whole_files_to_deliver(folder: RunFolder, tmp_path: Path) -> None:
    plan = save_plan(plan_for(make_job(output=str(tmp_path / "out"))), folder.plan)
    life = Lifecycle(folder, tmp_path / "home", os.environ, keep=False)

    life._stop_batch("batch_cancelled")
    life._end(judge_stop("batch_cancelled", None, interrupted=False), released=True)

    assert plan.job.output == str(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["error.jsonl", "output.jsonl"]


def test_finished_files_are_left_as_they_are(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.output.write_text("done\n")

    finish_results(folder, "batch_cancelled")

    assert folder.output.read_text() == "done\n"
    assert not folder.errors.exists()
