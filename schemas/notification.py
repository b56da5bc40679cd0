"""What is told to others about a run, one record each: the body of a webhook, and a line of notifications.jsonl."""

from __future__ import annotations

import uuid

import msgspec

from schemas.notify import Occasion
from schemas.status import Released, RequestCounts, State

_NAMESPACE = uuid.UUID("6c1f6f0e-5c3b-5b0e-9a39-3d1f3a9c7e11")


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """id: the same whoever tells it again, so that a receiver can drop twins. percent: of limits.max_usd, for `budget`.

    usd: what the machines have cost until then by their list prices. machines_left: what may still cost money.
    """

    version: int = 1
    id: str
    event: Occasion
    percent: int = 0
    time: str
    run: str
    job: str
    state: State
    released: Released
    exit_code: int | None = None
    message: str = ""
    request_counts: RequestCounts = RequestCounts()
    usd: float = 0.0
    max_usd: float | None = None
    machines_left: tuple[str, ...] = ()


def make_notification_id(run: str, started_at: float, event: Occasion, percent: int = 0) -> str:
    """The id of what happens at most once in a run; started_at tells runs of the same name apart."""
    return str(uuid.uuid5(_NAMESPACE, f"{run}\n{started_at!r}\n{event}\n{percent}"))
