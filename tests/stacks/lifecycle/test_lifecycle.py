from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.job import Candidate, Limits
from stacks.lifecycle.lifecycle import Lifecycle
from stacks.lifecycle.up_care import UpCare
from stacks.planning.plan import save_plan
from stacks.runs import ledger as ledger_module
from stacks.runs.outcome import Outcome
from stacks.runs.run_status import read_status
from stacks.stack import Stack
from tests.stacks.run_files import START, make_folder, make_h100, make_job, plan_for


@pytest.fixture
def lifecycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lifecycle:
    folder = make_folder(tmp_path)
    limits = Limits(max_usd=25.0, max_hours=6, boot_usd=5.0)
    job = make_job(candidates=[Candidate(cloud="runpod", gpu="H100")], limits=limits)
    save_plan(plan_for(job, make_h100()), folder.plan)
    monkeypatch.setattr("stacks.lifecycle.lifecycle.time.time", lambda: START + 60)
    return Lifecycle(folder, tmp_path, os.environ, keep=False)


def test_a_look_at_a_run_with_a_budget_reads_the_intents_once(
    lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    load_intents = ledger_module.load_intents
    monkeypatch.setattr(ledger_module, "load_intents", lambda root: reads.append(root) or load_intents(root))  # type: ignore[func-returns-value]
    lifecycle.machines.next_chase = 0.0
    up: Any = SimpleNamespace(is_running=lambda: True)

    assert lifecycle._look(up, up) is None

    assert reads == [lifecycle.folder.root]
    assert read_status(lifecycle.folder) is not None
    assert lifecycle.folder.budget.exists()


def test_what_ends_its_machines_is_loaded_while_they_are_made_and_not_from_a_checkout_of_later(
    lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    up: Any = SimpleNamespace(is_running=lambda: False)

    def end(*_: object) -> Outcome:
        steps.append("look")
        return Outcome(state="completed", exit_code=0, message="")

    monkeypatch.setattr(Stack, "__init__", lambda *_: None)
    monkeypatch.setattr(Stack, "init", lambda _: None)
    monkeypatch.setattr(UpCare, "start", lambda _: steps.append("up") or up)  # type: ignore[func-returns-value]
    monkeypatch.setattr("stacks.lifecycle.lifecycle.open_clouds", lambda names: steps.extend(names))
    monkeypatch.setattr(lifecycle, "_look", end)

    lifecycle._work()

    assert steps == ["up", "runpod", "look"], "first `up`, since it waits for nothing"
