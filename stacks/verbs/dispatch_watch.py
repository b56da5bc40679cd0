"""Shows a dispatcher at work to whoever started it: a line that is redrawn, without a terminal one now and then. For `dispatch`.

The dispatcher's own log goes to stderr as well, on a terminal above that line. Nothing goes to stdout.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from schemas.status import Progress
from stacks.terminal.console import leave_room
from stacks.terminal.duration_words import format_duration
from stacks.verbs.display import render_requests

TELL_EVERY_S = 10.0
_REDRAW_EVERY_S = 0.125
# The dispatcher gives what is in flight ten seconds.
_STOP_TIMEOUT_S = 20.0
_URGENT_TIMEOUT_S = 5.0
_LOG_TIMEOUT_S = 5.0


def run_watched(command: Sequence[str], folder: Path, console: Console, *, tell_every_s: float = TELL_EVERY_S) -> int:
    """Run the dispatcher of a folder to its end; its exit code. KeyboardInterrupt stops it; a second one ends what is in
    flight, a third one kills it."""
    is_live = console.is_terminal
    with subprocess.Popen(command, stderr=subprocess.PIPE if is_live else None) as process:
        try:
            if process.stderr is not None:
                _watch_live(process, process.stderr, folder, console)
            else:
                _watch_lines(process, folder, console, tell_every_s)
        except KeyboardInterrupt:
            console.print("stopping: what is in flight may end; Ctrl-C again ends it now", style="dim")
            _stop(process)
            raise
        return process.wait()


def describe_progress(progress: Progress) -> str:
    """How far it is, in one line."""
    counts = progress.request_counts
    parts = [f"{counts.completed + counts.failed:,} of {counts.total:,} requests"]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    if progress.state == "running":
        parts.append(f"{progress.requests_per_s:,.0f} requests/s, {progress.output_tokens_per_s:,.0f} tokens/s")
    if progress.eta_s is not None:
        parts.append(f"{format_duration(progress.eta_s)} left")
    return ", ".join([*parts, progress.message] if progress.message else parts)


def _watch_live(process: subprocess.Popen[bytes], stream: IO[bytes], folder: Path, console: Console) -> None:
    log = threading.Thread(target=_print_log, args=(stream, console), daemon=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        log.start()
        while _is_running(process, _REDRAW_EVERY_S):
            progress = _read_own_progress(folder, process.pid)
            if progress is not None:
                live.update(leave_room(_render(progress), console), refresh=True)
        # Something that the dispatcher started may hold its stderr open.
        log.join(_LOG_TIMEOUT_S)


def _render(progress: Progress) -> RenderableType:
    if progress.request_counts.total and not progress.message:
        return render_requests(progress.request_counts, progress)
    return Text(f"    {describe_progress(progress) if progress.request_counts.total else progress.message}", "dim")


def _print_log(stream: IO[bytes], console: Console) -> None:
    for line in stream:
        console.print(Text(line.decode("utf-8", "replace").rstrip("\n")), soft_wrap=True)


def _watch_lines(process: subprocess.Popen[bytes], folder: Path, console: Console, every_s: float) -> None:
    while _is_running(process, every_s):
        progress = _read_own_progress(folder, process.pid)
        if progress is not None and progress.request_counts.total:
            console.print(f"{time.strftime('%H:%M:%S')}  {describe_progress(progress)}")


def _is_running(process: subprocess.Popen[bytes], for_s: float) -> bool:
    """Wait so long, or until it has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(for_s)
        return False
    return True


def _read_own_progress(folder: Path, pid: int) -> Progress | None:
    """None until this dispatcher has written it: an earlier one's tells nothing of now."""
    try:
        progress = msgspec.json.decode((folder / "progress.json").read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return progress if progress.pid == pid else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """A terminal has told it too; whoever signals this process alone has not. At a second signal it still writes what it has."""
    process.terminate()
    for patience_s in (_STOP_TIMEOUT_S, _URGENT_TIMEOUT_S):
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(patience_s)
            return
        process.send_signal(signal.SIGINT)
    process.kill()  # what it has written is kept
    process.wait()
