"""What a run has to tell, to whom, and who has been told, on disk: notifications.jsonl. Whoever comes later tells the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from schemas.files import append_line
from schemas.notification import Notification


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """receiver: the place where its target stands; is_delivered False: the receiver has refused it for good."""

    id: str
    receiver: str
    is_delivered: bool


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One notification; waiting and refused: those of its receivers that have not been told, in the order of their places."""

    notification: Notification
    waiting: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the two; `to` goes with `tell`: who wanted it then, as another environment would name others."""

    tell: Notification | None = None
    to: tuple[str, ...] = ()
    told: Told | None = None


class Outbox:
    """Thread-safe: each line is one write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, notification: Notification, to: Sequence[str]) -> None:
        append_line(self.path, msgspec.json.encode(_Line(tell=notification, to=tuple(to))), durable=True)

    def close(self, id: str, receiver: str, *, is_delivered: bool) -> None:
        """Nothing more is to be done about this one for this receiver."""
        told = Told(id=id, receiver=receiver, is_delivered=is_delivered)
        append_line(self.path, msgspec.json.encode(_Line(told=told)), durable=False)

    def read(self) -> dict[str, Letter]:
        """Everything there is to tell, by id, in the order in which it happened; torn lines are none."""
        asked: dict[str, tuple[Notification, tuple[str, ...]]] = {}
        told: dict[tuple[str, str], bool] = {}
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=_Line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if entry.tell is not None:
                asked[entry.tell.id] = entry.tell, entry.to
            if entry.told is not None:
                pair = entry.told.id, entry.told.receiver
                told[pair] = entry.told.is_delivered or told.get(pair, False)
        return {id: _make_letter(notification, to, told) for id, (notification, to) in asked.items()}


def _make_letter(notification: Notification, to: Sequence[str], told: dict[tuple[str, str], bool]) -> Letter:
    verdicts = {name: told.get((notification.id, name)) for name in to}
    return Letter(
        notification=notification,
        waiting=tuple(name for name, verdict in verdicts.items() if verdict is None),
        refused=tuple(name for name, verdict in verdicts.items() if verdict is False),
    )
