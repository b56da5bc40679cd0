"""Starts the dispatcher of a live run again when it died before its end. Called by the life cycle."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from schemas.errors import LeaseholdError
from schemas.events import append_event
from stacks.run_folder import RunFolder
from stacks.runs.run_status import read_progress

_RESTARTS = 5
# How long a dispatcher may take until it has written its first progress; of one that we started we know that it has ended.
_FIRST_WORD_S = 15.0
_PAUSE_S = 1.0
_LOG_LINES = 15


class DispatcherCare:
    """Remembers how often it was started again."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.restarts = 0
        self.restarted: subprocess.Popen[bytes] | None = None
        self.restarted_at = 0.0

    def keep_alive(self) -> None:
        """Start it again if it died, a few times at most; it goes on where the journal ends.

        Raises LeaseholdError with the end of its log when it cannot be kept alive.
        """
        if self.restarted is not None and self.restarted.poll() is None:
            return  # it runs, also when it has not got as far as writing down that it does
        if not self._is_dead():
            return
        if self.restarts >= _RESTARTS:
            raise LeaseholdError(
                f"the dispatcher died {self.restarts + 1} times; its log ends:\n    {self._read_log_end()}",
                where=self.folder.run,
                fix=f"The whole log: ./inv logs {self.folder.run} --source dispatch",
            )
        self.restarts += 1
        self.restarted_at = time.time()
        append_event(self.folder.events, "dispatcher", "dispatcher_restarted", "the dispatcher died; starting it again")
        with (self.folder.root / "dispatch.log").open("ab") as log:
            self.restarted = subprocess.Popen(
                [sys.executable, "-P", "-m", "runtime.dispatcher", str(self.folder.manifest)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _is_dead(self) -> bool:
        progress = read_progress(self.folder)
        if progress is None:
            return self._never_spoke()
        if progress.state not in ("waiting", "running", "draining"):
            return False
        # One that was just started has not had the time to write.
        return _is_gone(progress.pid, max(progress.updated_at, self.restarted_at))

    def _never_spoke(self) -> bool:
        """Whether it was started a while ago and has not written anything."""
        if not self.folder.manifest.exists():
            return False
        started_at = max(self.folder.manifest.stat().st_mtime, self.restarted_at)
        return time.time() - started_at > (_FIRST_WORD_S if self.restarted is None else _PAUSE_S)

    def _read_log_end(self) -> str:
        try:
            lines = (self.folder.root / "dispatch.log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "(there is none)"
        return "\n    ".join(lines[-_LOG_LINES:])


def _is_gone(pid: int, updated_at: float) -> bool:
    """Whether no process of that id runs, and has not for a moment (a restarted one first has to write)."""
    try:
        is_running = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        is_running = False
    return not is_running and time.time() - updated_at > _PAUSE_S
