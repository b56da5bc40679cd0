"""Starts the dispatcher of a live run again when it died before its end. Called by the life cycle."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from schemas.events import append_event
from stacks.run_folder import RunFolder
from stacks.run_status import read_progress

_RESTARTS = 5


class DispatcherCare:
    """Remembers how often it was started again."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.restarts = 0
        self.restarted: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> None:
        """Start it again if it died, a few times at most; it goes on where the journal ends."""
        progress = read_progress(self.folder)
        if progress is None or progress.state not in ("waiting", "running", "draining"):
            return
        if self.restarted is not None:
            self.restarted.poll()
        if not _is_gone(progress.pid, progress.updated_at) or self.restarts >= _RESTARTS:
            return
        self.restarts += 1
        append_event(self.folder.events, "dispatcher", "dispatcher_restarted", "the dispatcher died; starting it again")
        with (self.folder.root / "dispatch.log").open("ab") as log:
            self.restarted = subprocess.Popen(
                [sys.executable, "-m", "runtime.dispatcher", str(self.folder.manifest)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _is_gone(pid: int, updated_at: float) -> bool:
    """Whether no process of that id runs, and has not for a moment (a restarted one first has to write)."""
    try:
        is_running = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        is_running = False
    return not is_running and time.time() - updated_at > 1.0
