"""What a run has to tell and has told, on disk: notifications.jsonl. Whoever comes after a killed process tells the rest."""

from __future__ import annotations

from pathlib import Path

import msgspec

from schemas.files import append_line
from schemas.notification import Notification


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """receiver: the place where its target stands; is_delivered False: given up."""

    id: str
    receiver: str
    is_delivered: bool


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the two."""

    tell: Notification | None = None
    told: Told | None = None


class Outbox:
    """Thread-safe: each line is one write. What was given up is not tried again by others."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, notification: Notification) -> None:
        append_line(self._path, msgspec.json.encode(_Line(tell=notification)), durable=True)

    def close(self, id: str, receiver: str, *, is_delivered: bool) -> None:
        """Nothing more is to be done about this one for this receiver."""
        told = Told(id=id, receiver=receiver, is_delivered=is_delivered)
        append_line(self._path, msgspec.json.encode(_Line(told=told)), durable=False)

    def read(self) -> tuple[dict[str, Notification], set[tuple[str, str]]]:
        """Everything there is to tell, by id, and what is done with, as pairs of id and receiver; torn lines are none."""
        notifications: dict[str, Notification] = {}
        closed: set[tuple[str, str]] = set()
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=_Line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if entry.tell is not None:
                notifications[entry.tell.id] = entry.tell
            if entry.told is not None:
                closed.add((entry.told.id, entry.told.receiver))
        return notifications, closed
