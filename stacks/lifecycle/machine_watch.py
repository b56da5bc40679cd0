"""Notices machines that died at work: asks their cloud when the dispatcher cannot reach them. Called by the life cycle."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from providers.cloud import Cloud
from providers.open_clouds import open_clouds
from schemas.errors import LeaseholdError
from schemas.events import append_event
from schemas.machine import MachineRecord
from schemas.status import Progress
from stacks.run_folder import RunFolder

_ASK_EVERY_S = 3.0
_DOWN_TOO_LONG_S = 180.0


class MachineWatch:
    """Remembers since when each machine is unreachable, and which are known to be dead."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.down_since: dict[str, float] = {}
        self.asked_at: dict[str, float] = {}
        self.dead: dict[str, int] = {}
        self.clouds: dict[str, Cloud] = {}
        self.last_death = ""

    def find_dead(self, joined: Sequence[MachineRecord], progress: Progress | None) -> set[int]:
        """Indexes of joined machines that are gone, failed, or unreachable for too long."""
        down = {each.index for each in progress.replicas if each.state in ("down", "connecting")} if progress else set()
        for record in joined:
            if record.index in down:
                self._look_at(record)
            else:
                self.down_since.pop(record.id, None)
        present = {record.id for record in joined}
        return {index for id, index in self.dead.items() if id in present}

    def forget(self, indexes: Iterable[int]) -> None:
        """The machines of these indexes are being replaced."""
        gone = set(indexes)
        self.dead = {id: index for id, index in self.dead.items() if index not in gone}

    def _look_at(self, record: MachineRecord) -> None:
        now = time.monotonic()
        since = self.down_since.setdefault(record.id, now)
        if record.id in self.dead or now - self.asked_at.get(record.id, -_ASK_EVERY_S) < _ASK_EVERY_S:
            return
        self.asked_at[record.id] = now
        reason = self._find_reason(record) or ("its engine does not answer" if now - since > _DOWN_TOO_LONG_S else "")
        if reason:
            self.dead[record.id] = record.index
            self.last_death = f"machine {record.index} ({record.cloud} {record.id}) died: {reason}"
            append_event(self.folder.events, "cloud", "machine_died", self.last_death, index=record.index, id=record.id)

    def _find_reason(self, record: MachineRecord) -> str:
        try:
            if record.cloud not in self.clouds:
                self.clouds.update(open_clouds([record.cloud]))
            state = self.clouds[record.cloud].find(record.id)
        except LeaseholdError:
            return ""
        if state is None:
            return "its cloud does not know it any more"
        return f"its cloud says {state.phase} ({state.detail})" if state.phase in ("failed", "ending") else ""
