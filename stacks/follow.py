"""Follows a run from another process: redraws its status until it has ended. Called by `run` and `follow`.

Ctrl-C or SIGTERM asks the life cycle to cancel and goes on following until everything is released; a hangup only ends
the following.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live

from schemas.errors import LeaseholdError
from schemas.events import read_events
from schemas.files import create_file
from schemas.status import Event, Status
from stacks.display import render_live
from stacks.run_folder import RunFolder
from stacks.run_processes import is_lifecycle_alive
from stacks.run_status import is_over, read_progress, read_status

_START_PATIENCE_S = 30.0
_DEATH_PATIENCE_S = 3.0


def request_cancel(folder: RunFolder, reason: str) -> None:
    """Ask the life cycle to cancel: it keeps what is finished and gives the machines back. The first reason stays."""
    create_file(folder.cancel, reason.encode())


def follow_run(folder: RunFolder, console: Console, *, cancel_on_interrupt: bool) -> Status:
    """Show the run until its life cycle has written its last word; raises LeaseholdError when that process is dead."""
    interrupts = _listen(folder, console) if cancel_on_interrupt else None
    try:
        if console.is_terminal:
            return _follow_live(folder, console)
        return _follow_lines(folder, console)
    finally:
        if interrupts is not None:
            interrupts()


def follow_events(folder: RunFolder, tell: Callable[[Event], None]) -> Status:
    """Tell each event once, as it comes, until the run has ended."""
    offset = 0
    last: Status | None = None
    for status in _watch(folder):
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


def _follow_live(folder: RunFolder, console: Console) -> Status:
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        status = None
        for frame, status in enumerate(_watch(folder)):
            live.update(render_live(status, read_progress(folder), frame))
        assert status is not None
        return status


def _follow_lines(folder: RunFolder, console: Console) -> Status:
    """Without a terminal: each event once, and the progress every ten seconds."""
    offset = 0
    told_at = time.monotonic()
    status = None
    for status in _watch(folder):
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


def _watch(folder: RunFolder) -> Iterator[Status]:
    """Statuses, several a second, the last one final."""
    started = time.monotonic()
    dead_since: float | None = None
    while True:
        status = read_status(folder)
        if status is not None:
            yield status
            if is_over(status):
                return
        if is_lifecycle_alive(folder):
            dead_since = None
        else:
            dead_since = dead_since or time.monotonic()
            patience_s = _DEATH_PATIENCE_S if status is not None else _START_PATIENCE_S
            if time.monotonic() - max(dead_since, started) > patience_s and not is_over(read_status(folder)):
                raise LeaseholdError(
                    "the run's life cycle process is dead",
                    where=folder.run,
                    fix=f"Free its machines: ./inv release {folder.run}   (its log: {folder.lifecycle_log})",
                )
        time.sleep(0.1)


def _listen(folder: RunFolder, console: Console) -> Callable[[], None]:
    """Turn SIGINT and SIGTERM into a request to cancel; returns what puts the old handlers back."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    def hear(_number: int, _frame: object) -> None:
        request_cancel(folder, "interrupted")
        console.print("Cancelling: keeping what is finished, giving the machines back ...", highlight=False)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore
