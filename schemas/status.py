"""A run's state, counts and events as other processes read them: status.json, events.jsonl, progress.json."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import msgspec

from schemas.durations import Durations

State = Literal[
    "queued",
    "resource_preparing",
    "submitting",
    "in_progress",
    "finalizing",
    "completed",
    "resource_failed",
    "submit_failed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
]
FINAL_STATES: frozenset[str] = frozenset(
    {"completed", "resource_failed", "submit_failed", "failed", "expired", "cancelled"}
)
Released = Literal["no", "verified", "unverified"]
MachineStage = Literal["booting", "joined", "draining", "gone", "unconfirmed"]
StopReason = Literal["batch_cancelled", "batch_expired", "budget_exceeded"]


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, as the engines counted them."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class MachineStatus(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    cloud: str
    id: str
    name: str
    state: MachineStage
    usd_per_hour: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """status.json: written by the life cycle alone; times are RFC 3339 in UTC, `released` is separate from the state."""

    version: int = 1
    run: str
    job: str
    state: State
    released: Released = "no"
    request_counts: RequestCounts = RequestCounts()
    usage: Usage = Usage()
    usd_so_far: float = 0.0
    machines: tuple[MachineStatus, ...] = ()
    output_file: str | None = None
    error_file: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    message: str = ""


class ReplicaProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One machine as the dispatcher sees it; window and in_flight count requests."""

    index: int
    state: Literal["connecting", "ready", "draining", "down", "left"]
    in_flight: int = 0
    window: int = 0
    completed: int = 0
    failed: int = 0
    output_tokens: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """progress.json: written by the dispatcher about twice a second; rates are per second over the last few seconds.

    state: waiting (for a first machine), running, draining (graceful stop), then one of finished (every line has its
    result), stopped (graceful stop, rest not run), failed (cannot go on, see message). durations: of the answers that are
    in the results, but for those taken over from an earlier run and for those of the last half second before a kill.
    """

    version: int = 1
    pid: int
    state: Literal["waiting", "running", "draining", "finished", "stopped", "failed"]
    request_counts: RequestCounts = RequestCounts()
    usage: Usage = Usage()
    requests_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    eta_s: float | None = None
    replicas: tuple[ReplicaProgress, ...] = ()
    started_at: float
    updated_at: float
    first_sent_at: float | None = None
    ended_at: float | None = None
    stop_reason: StopReason | None = None
    redone: int = 0
    message: str = ""
    durations: Durations | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of events.jsonl; time is RFC 3339 with milliseconds."""

    time: str
    source: Literal["planner", "cloud", "engine", "dispatcher", "release", "notifier"]
    event: str
    message: str
    data: dict[str, Any] = {}


def format_time(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC with milliseconds."""
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
