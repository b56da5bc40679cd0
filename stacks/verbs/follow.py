"""Follows a run from another process: redraws its status until it has ended. Called by `run` and `follow`.

Ctrl-C or SIGTERM asks the life cycle to cancel and goes on following until everything is released; a hangup only ends
the following.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.live import Live

from schemas.events import read_events
from schemas.files import create_file
from schemas.status import Event, Status
from stacks.run_folder import RunFolder
from stacks.runs.death_watch import DeathWatch
from stacks.runs.run_status import is_over, read_progress, read_status
from stacks.terminal.console import leave_room
from stacks.verbs.display import render_live


def request_cancel(folder: RunFolder, reason: str) -> None:
    """Ask the life cycle to cancel: it keeps what is finished and gives the machines back. The first reason stays."""
    create_file(folder.cancel, reason.encode())


def follow_run(folder: RunFolder, console: Console, *, cancel_on_interrupt: bool) -> Status:
    """Show the run until its life cycle has written its last word; raises LeaseholdError when that process is dead."""
    with _Interrupts(folder, console) if cancel_on_interrupt else contextlib.nullcontext() as interrupts:
        look = interrupts.tell if interrupts is not None else _ignore
        return _follow_live(folder, console, look) if console.is_terminal else _follow_lines(folder, console, look)


def follow_events(folder: RunFolder, tell: Callable[[Event], None]) -> Status:
    """Tell each event once, as it comes, until the run has ended."""
    offset = 0
    last: Status | None = None
    for status in _watch(folder, _ignore):
        offset = _tell_events(folder, tell, offset)
        last = status
    _tell_events(folder, tell, offset)
    assert last is not None
    return last


def _tell_events(folder: RunFolder, tell: Callable[[Event], None], offset: int) -> int:
    for event, behind in read_events(folder.events, offset):
        tell(event)
        offset = behind
    return offset


def _ignore() -> None:
    pass


def _follow_live(folder: RunFolder, console: Console, look: Callable[[], None]) -> Status:
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        status = None
        for frame, status in enumerate(_watch(folder, look)):
            live.update(leave_room(render_live(status, read_progress(folder), frame), console))
        assert status is not None
        return status


def _follow_lines(folder: RunFolder, console: Console, look: Callable[[], None]) -> Status:
    """Without a terminal: each event once, and the progress every ten seconds."""
    offset = 0
    told_at = time.monotonic()
    status = None
    for status in _watch(folder, look):
        offset = _print_events(folder, console, offset)
        if status.state == "in_progress" and time.monotonic() - told_at > 10:
            told_at = time.monotonic()
            counts = status.request_counts
            console.print(
                f"          {counts.completed + counts.failed:,} of {counts.total:,} requests", highlight=False
            )
    _print_events(folder, console, offset)
    assert status is not None
    return status


def _print_events(folder: RunFolder, console: Console, offset: int) -> int:
    """Print the events behind offset, each once; returns the offset behind the last."""

    def tell(event: Event) -> None:
        console.print(f"{event.time[11:19]}  {event.message}", highlight=False, markup=False, soft_wrap=True)

    return _tell_events(folder, tell, offset)


def _watch(folder: RunFolder, look: Callable[[], None]) -> Iterator[Status]:
    """Statuses, several a second, the last one final; `look` is called each time, also before there is one."""
    deaths = DeathWatch(folder)
    while True:
        look()
        status = read_status(folder)
        if status is not None:
            yield status
            if is_over(status):
                return
        death = deaths.find_death(status)
        if death is not None:
            raise death
        time.sleep(0.1)


class _Interrupts:
    """While it is entered, SIGINT and SIGTERM ask to cancel; `tell` says so, once.

    The handler prints nothing: it may run in the middle of a redraw, which would leave a stale line behind.
    """

    def __init__(self, folder: RunFolder, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._is_heard = False
        self._is_told = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._hear) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def tell(self) -> None:
        if self._is_heard and not self._is_told:
            self._is_told = True
            words = "Cancelling: keeping what is finished, giving the machines back ..."
            self._console.print(words, highlight=False)

    def _hear(self, _number: int, _frame: object) -> None:
        self._is_heard = True
        request_cancel(self._folder, "interrupted")
