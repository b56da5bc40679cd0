"""Writes status.json and tells what a run's status is: the one place where progress, machines and outcome meet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from schemas.errors import CancelledError, CloudError, EngineError, ExpiredError, ReleaseError, RequestsFailed
from schemas.events import append_event
from schemas.files import replace_file
from schemas.status import (
    FINAL_STATES,
    MachineStage,
    MachineStatus,
    Progress,
    Released,
    RequestCounts,
    State,
    Status,
    format_time,
)
from stacks.run_folder import RunFolder
from stacks.runs.ledger import LedgerEntry, read_joined, read_ledger, sum_usd
from stacks.runs.outcome import Outcome, choose_exit_code, judge_progress

_EXIT_CODES: dict[State, int] = {
    "completed": 0,
    "resource_failed": CloudError.exit_code,
    "submit_failed": EngineError.exit_code,
    "failed": RequestsFailed.exit_code,
    "expired": ExpiredError.exit_code,
    "cancelled": CancelledError.exit_code,
}


class StatusWriter:
    """The life cycle's hand on status.json; every change of state is an event too."""

    def __init__(self, folder: RunFolder, job: str, total: int) -> None:
        self.folder = folder
        counts = RequestCounts(total=total)
        started = format_time(time.time())
        self.status = Status(run=folder.run, job=job, state="queued", request_counts=counts, started_at=started)

    def enter(self, state: State, message: str = "") -> None:
        """Go to a state; nothing happens when the run is in it already."""
        if state == self.status.state:
            return
        self.status = msgspec.structs.replace(self.status, state=state, message=message)
        # The first line only: whoever follows reads the whole message once more in the summary.
        append_event(self.folder.events, "planner", state, message.split("\n", 1)[0] or f"the run is {state}")
        self.refresh()

    def refresh(self, ledger: Sequence[LedgerEntry] | None = None) -> Status:
        """Take in progress and machines and write the file; on a full disk the old one stays, and the run goes on.

        ledger: from whom has just read it.
        """
        self.status = _merge(self.status, self.folder, read_ledger(self.folder) if ledger is None else ledger)
        with contextlib.suppress(OSError):
            replace_file(self.folder.status, msgspec.json.encode(self.status))
        return self.status

    def end(self, state: State, released: Released, exit_code: int, message: str) -> Status:
        """Write the final status, once."""
        self.enter(state, message)
        self.status = msgspec.structs.replace(
            self.status,
            released=released,
            exit_code=exit_code,
            message=message,
            ended_at=format_time(time.time()),
            output_file=_name_if_there(self.folder.output),
            error_file=_name_if_there(self.folder.errors),
        )
        return self.refresh()


def read_progress(folder: RunFolder) -> Progress | None:
    """What the dispatcher last said; None before it has said anything."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(folder.progress.read_bytes(), type=Progress)
    return None


def read_status(folder: RunFolder) -> Status | None:
    """The last written status; None before the life cycle has started."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(folder.status.read_bytes(), type=Status)
    return None


def is_over(status: Status | None) -> bool:
    """Whether the life cycle has written its last word."""
    return status is not None and status.state in FINAL_STATES and status.ended_at is not None


def end_for_dead_lifecycle(folder: RunFolder, *, verified: bool, message: str) -> Status:
    """Write the final status of a run whose own life cycle could not: after `release`, or under plain Pulumi."""
    before = read_status(folder) or Status(run=folder.run, job=folder.run, state="queued")
    writer = StatusWriter(folder, before.job, before.request_counts.total)
    writer.status = before
    released: Released = "verified" if verified else "unverified"
    outcome = _judge_before(before) if is_over(before) else _judge_dead(folder)
    words = outcome.message if verified or not message else f"{outcome.message}\n{message}"
    return writer.end(outcome.state, released, choose_exit_code(outcome, released=verified), words)


def _judge_before(status: Status) -> Outcome:
    """What was said before; where only the release was missing, the code that the run would have had without that."""
    code = status.exit_code if status.exit_code is not None else 0
    if code == ReleaseError.exit_code:
        has_failures = status.state == "completed" and status.request_counts.failed > 0
        code = RequestsFailed.exit_code if has_failures else _EXIT_CODES[status.state]
    return Outcome(state=status.state, exit_code=code, message=status.message.split("\n", 1)[0])


def _judge_dead(folder: RunFolder) -> Outcome:
    progress = read_progress(folder)
    outcome = judge_progress(progress) if progress is not None else None
    if outcome is None:
        outcome = Outcome(state="cancelled", exit_code=CancelledError.exit_code, message="released")
    if not folder.lifecycle.exists():
        return outcome
    return msgspec.structs.replace(outcome, message=f"{outcome.message} (its life cycle died before its end)")


def _merge(status: Status, folder: RunFolder, entries: Sequence[LedgerEntry]) -> Status:
    progress = read_progress(folder)
    if progress is not None:
        status = msgspec.structs.replace(status, request_counts=progress.request_counts, usage=progress.usage)
    return msgspec.structs.replace(
        status,
        usd_so_far=round(sum_usd(entries, time.time()), 4),
        machines=_describe_machines(entries, folder, progress),
    )


def _describe_machines(
    entries: Sequence[LedgerEntry], folder: RunFolder, progress: Progress | None
) -> tuple[MachineStatus, ...]:
    joined = {record.id for record in read_joined(folder)}
    draining = {each.index for each in progress.replicas if each.state == "draining"} if progress else set()
    return tuple(
        MachineStatus(
            index=entry.index,
            cloud=entry.cloud,
            id=entry.id,
            name=entry.name,
            state=_tell_stage(entry, joined, draining),
            usd_per_hour=entry.price_usd_per_hour,
        )
        for entry in entries
    )


def _tell_stage(entry: LedgerEntry, joined: set[str], draining: set[int]) -> MachineStage:
    if entry.gone_at is not None:
        return "gone"
    if entry.unconfirmed:
        return "unconfirmed"
    if entry.id in joined:
        return "draining" if entry.index in draining else "joined"
    return "booting"


def _name_if_there(path: Path) -> str | None:
    return str(path) if path.exists() and path.stat().st_size else None
