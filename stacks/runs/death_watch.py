"""Tells when the life cycle of a run has died without a last word. Used by everything that follows a run."""

from __future__ import annotations

import time

from schemas.errors import LeaseholdError
from schemas.status import Status
from stacks.run_folder import RunFolder
from stacks.runs.run_processes import is_lifecycle_alive
from stacks.runs.run_status import is_over, read_status

_START_PATIENCE_S = 30.0
_DEATH_PATIENCE_S = 3.0


class DeathWatch:
    """Looks at one run from the moment it was made; at the very start a life cycle has not said yet who it is."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._started_at = time.monotonic()
        self._dead_since: float | None = None

    def find_death(self, status: Status | None) -> LeaseholdError | None:
        """What to tell once the process has been dead for a while and its last word has not come; status: the last read."""
        if is_lifecycle_alive(self._folder):
            self._dead_since = None
            return None
        now = time.monotonic()
        self._dead_since = self._dead_since or now
        patience_s = _DEATH_PATIENCE_S if status is not None else _START_PATIENCE_S
        if now - max(self._dead_since, self._started_at) <= patience_s or is_over(read_status(self._folder)):
            return None
        return LeaseholdError(
            "the run's life cycle process is dead",
            where=self._folder.run,
            fix=f"Free its machines: ./inv release {self._folder.run}   (its log: {self._folder.lifecycle_log})",
        )
