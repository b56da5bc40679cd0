"""When the dispatcher's last deed has something to do. The release itself is shown by the chaos suite, with the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from schemas.status import Status, format_time
from stacks.lifecycle.orphan_release import release_if_orphaned
from stacks.process_mark import ProcessMark, mark_process
from stacks.run_folder import RunFolder
from stacks.runs.run_processes import RunProcesses, save_processes
from stacks.runs.run_status import StatusWriter

pytestmark = pytest.mark.wire

DEAD = ProcessMark(pid=2**22 - 1, started_at=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "r1")
    made.make()
    return made


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    runs: list[str] = []

    def end(folder: RunFolder, *_: Any) -> Status:
        runs.append(folder.run)
        return Status(run=folder.run, job="j", state="cancelled", released="verified", ended_at=format_time(0))

    monkeypatch.setattr("stacks.lifecycle.dead_run.end_dead_run", end)
    return runs


def watch(folder: RunFolder, **more: float) -> int:
    return release_if_orphaned(folder, folder.root, os.environ, **more)


def test_a_run_under_plain_pulumi_is_its_users(folder: RunFolder, released: list[str]) -> None:
    assert watch(folder) == 0
    assert released == []


def test_a_dead_life_cycle_is_stood_in_for(folder: RunFolder, released: list[str]) -> None:
    save_processes(folder, RunProcesses(lifecycle=DEAD))

    assert watch(folder) == 0
    assert released == ["r1"]


def test_a_life_cycle_that_has_said_its_last_word_needs_nobody(folder: RunFolder, released: list[str]) -> None:
    save_processes(folder, RunProcesses(lifecycle=DEAD))
    StatusWriter(folder, "j", 1).end("completed", "verified", 0, "done")

    assert watch(folder) == 0
    assert released == []


def test_while_the_life_cycle_lives_nothing_is_touched_and_when_it_is_killed_it_is(
    folder: RunFolder, released: list[str]
) -> None:
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    save_processes(folder, RunProcesses(lifecycle=mark_process(alive.pid)))
    assert watch(folder, patience_s=0.5) == 0
    assert released == []

    waiting = threading.Thread(target=lambda: watch(folder, patience_s=20))
    waiting.start()
    alive.kill()
    alive.wait()
    waiting.join(10)

    assert released == ["r1"]
