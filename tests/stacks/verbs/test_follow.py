"""Following a run from outside, with a run's folder that is written step by step by a life cycle that only seems to be one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from schemas.errors import LeaseholdError
from schemas.events import append_event
from schemas.status import Status
from stacks.process_mark import mark_process
from stacks.run_folder import RunFolder
from stacks.runs import death_watch
from stacks.runs.run_processes import RunProcesses, save_processes
from stacks.runs.run_status import StatusWriter
from stacks.verbs.follow import follow_run, request_cancel
from tests.stacks.run_files import make_folder

pytestmark = pytest.mark.wire


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


@pytest.fixture
def writer(folder: RunFolder) -> StatusWriter:
    return StatusWriter(folder, "tickets", 10)


@pytest.fixture
def lifecycle(folder: RunFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A live process that the folder names as its life cycle."""
    with subprocess.Popen(["sleep", "30"]) as process:
        save_processes(folder, RunProcesses(lifecycle=mark_process(process.pid)))
        yield process
        process.kill()


def make_console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, markup=False)


def read(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_that_has_ended_is_told_at_once(folder: RunFolder, writer: StatusWriter) -> None:
    ended = writer.end("completed", "verified", 0, "all answered")

    assert follow_run(folder, make_console(), cancel_on_interrupt=False) == ended


def test_every_event_is_printed_once_in_its_order(folder: RunFolder, writer: StatusWriter) -> None:
    append_event(folder.events, "cloud", "machine_created", "runpod machine p1 [H100]")
    writer.end("completed", "verified", 0, "all answered")
    console = make_console()

    follow_run(folder, console, cancel_on_interrupt=False)

    lines = [line[10:] for line in read(console).splitlines()]
    assert lines == ["runpod machine p1 [H100]", "all answered"]


@pytest.mark.parametrize("terminal", [False, True])
def test_following_goes_on_until_the_last_word(
    folder: RunFolder, writer: StatusWriter, lifecycle: subprocess.Popen[bytes], terminal: bool
) -> None:
    writer.enter("in_progress", "working")
    console = make_console(terminal=terminal)
    found: list[Status] = []
    follower = threading.Thread(
        target=lambda: found.append(follow_run(folder, console, cancel_on_interrupt=True)), daemon=True
    )
    follower.start()
    follower.join(0.3)
    assert follower.is_alive()

    writer.enter("completed", "all answered")
    follower.join(0.3)
    assert follower.is_alive(), "the life cycle still releases"
    writer.end("completed", "verified", 0, "all answered")

    follower.join(5)
    assert [status.released for status in found] == ["verified"]


def test_a_dead_life_cycle_is_told_with_what_to_do(
    folder: RunFolder, writer: StatusWriter, lifecycle: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(death_watch, "_DEATH_PATIENCE_S", 0.1)
    writer.enter("in_progress")
    lifecycle.kill()
    lifecycle.wait()

    with pytest.raises(LeaseholdError, match="life cycle process is dead") as caught:
        follow_run(folder, make_console(), cancel_on_interrupt=False)

    assert caught.value.where == "tickets-1"
    assert "./inv release tickets-1" in caught.value.fix
    assert str(folder.lifecycle_log) in caught.value.fix


def test_a_life_cycle_that_never_started_is_waited_for_and_then_told(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(death_watch, "_START_PATIENCE_S", 0.2)

    with pytest.raises(LeaseholdError, match="dead"):
        follow_run(folder, make_console(), cancel_on_interrupt=False)


def test_a_life_cycle_that_ends_in_good_order_is_not_called_dead(
    folder: RunFolder, writer: StatusWriter, lifecycle: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(death_watch, "_DEATH_PATIENCE_S", 0.0)
    writer.enter("in_progress")
    writer.end("cancelled", "verified", 7, "cancelled")
    lifecycle.kill()
    lifecycle.wait()

    assert follow_run(folder, make_console(), cancel_on_interrupt=False).exit_code == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_asks_to_cancel_and_following_goes_on(
    folder: RunFolder, writer: StatusWriter, lifecycle: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    writer.enter("in_progress")
    before = signal.getsignal(number)
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    threading.Timer(0.5, writer.end, ("cancelled", "verified", 130, "cancelled")).start()
    console = make_console()

    status = follow_run(folder, console, cancel_on_interrupt=True)

    assert status.exit_code == 130
    assert folder.cancel.read_text() == "interrupted"
    assert "giving the machines back" in read(console)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("terminal", [False, True])
def test_interrupting_again_and_again_is_answered_once(
    folder: RunFolder, writer: StatusWriter, lifecycle: subprocess.Popen[bytes], terminal: bool
) -> None:
    writer.enter("in_progress")
    for delay_s in (0.2, 0.4, 0.6):
        threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGINT)).start()
    threading.Timer(0.9, writer.end, ("cancelled", "verified", 130, "cancelled")).start()
    console = make_console(terminal=terminal)

    follow_run(folder, console, cancel_on_interrupt=True)

    assert read(console).count("Cancelling: keeping what is finished") == 1


def test_an_interrupt_before_the_run_has_said_anything_is_answered_too(
    folder: RunFolder, lifecycle: subprocess.Popen[bytes]
) -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    threading.Timer(0.6, lambda: StatusWriter(folder, "tickets", 1).end("cancelled", "verified", 130, "")).start()
    console = make_console()

    follow_run(folder, console, cancel_on_interrupt=True)

    lines = read(console).splitlines()
    assert [index for index, line in enumerate(lines) if line.startswith("Cancelling")] == [0]


def test_the_first_reason_to_cancel_stays(folder: RunFolder) -> None:
    request_cancel(folder, "cancelled")
    request_cancel(folder, "interrupted")

    assert folder.cancel.read_text() == "cancelled"
