"""How a run stands or has ended, for the top of its report: state, release, counts, cost, time, tokens. For data.py."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.status import FINAL_STATES, Progress, Released, Status, Usage
from stacks.planning.plan import Plan
from stacks.report.errors import ErrorReport
from stacks.report.machines import parse_time
from stacks.run_folder import RunFolder
from stacks.runs.ledger import LedgerEntry, sum_usd
from stacks.runs.receipt import Receipt

UNKNOWN = "unknown"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """None: not known. not_run: stopped before their turn; open: may still be answered. duration_s: until now while it lives.

    life: `over`, `alive`, `dead` (its life cycle is gone before its end) or `none` (run by hand with pulumi).
    """

    state: str
    released: Released
    life: str
    exit_code: int | None = None
    message: str = ""
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    not_run: int = 0
    open: int = 0
    redone: int = 0
    usd: float | None = None
    billed_usd: float | None = None
    usd_per_million_tokens: float | None = None
    usage: Usage | None = None
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float | None = None

    @property
    def is_over(self) -> bool:
        return self.life == "over"


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a run's folder; None for what is missing or cannot be read."""

    folder: RunFolder
    plan: Plan | None = None
    status: Status | None = None
    progress: Progress | None = None
    receipt: Receipt | None = None
    entries: tuple[LedgerEntry, ...] = ()
    errors: ErrorReport | None = None
    is_alive: bool = False
    is_proven: bool = False


def make_outcome(sources: Sources, now: float) -> Outcome:
    """The best that the files tell; what none of them tells is None."""
    status, receipt = sources.status, sources.receipt
    life = _tell_life(sources)
    started_at, ended_at = _find_times(sources)
    total, completed, failed, not_run, left = _count(sources, is_over=life == "over")
    end = ended_at if ended_at is not None else now
    return Outcome(
        state=status.state if status else _guess_state(sources),
        released=status.released if status else "verified" if sources.is_proven else "no",
        life=life,
        exit_code=status.exit_code if status else None,
        message=status.message if status else sources.progress.message if sources.progress else "",
        total=total,
        completed=completed,
        failed=failed,
        not_run=not_run,
        open=left,
        redone=sources.progress.redone if sources.progress else 0,
        usd=_find_usd(sources, now),
        billed_usd=receipt.billed_usd if receipt else None,
        usd_per_million_tokens=receipt.usd_per_million_tokens if receipt else None,
        usage=_find_usage(sources),
        started_at=started_at,
        ended_at=ended_at,
        duration_s=max(0.0, end - started_at) if started_at is not None else None,
    )


def _tell_life(sources: Sources) -> str:
    status = sources.status
    if status is not None and status.state in FINAL_STATES and status.ended_at is not None:
        return "over"
    if sources.is_alive:
        return "alive"
    return "dead" if sources.folder.lifecycle.exists() else "none"


def _guess_state(sources: Sources) -> str:
    """For a run without a status: plain Pulumi, or a file that was lost."""
    if sources.progress is None:
        return UNKNOWN
    return {"finished": "completed", "stopped": "cancelled", "failed": "failed"}.get(
        sources.progress.state, "in_progress"
    )


def _find_times(sources: Sources) -> tuple[float | None, float | None]:
    status, plan, progress = sources.status, sources.plan, sources.progress
    started_at = parse_time(status.started_at) if status and status.started_at else None
    if started_at is None:
        started_at = plan.created_at if plan else progress.started_at if progress else None
    ended_at = parse_time(status.ended_at) if status and status.ended_at else None
    if ended_at is None and status is None and progress is not None:
        ended_at = progress.ended_at
    return started_at, ended_at


def _count(sources: Sources, *, is_over: bool) -> tuple[int | None, int | None, int | None, int, int]:
    """total, answered, failed, not run, open; the stopped ones stand in error.jsonl among the failed."""
    holder = sources.progress or sources.status
    if holder is None:
        return (sources.plan.requests if sources.plan else None), None, None, 0, 0
    counts = holder.request_counts
    total = counts.total or (sources.plan.requests if sources.plan else 0)
    stopped = sources.errors.not_run if sources.errors else 0
    failed = max(0, counts.failed - stopped)
    left = max(0, total - counts.completed - counts.failed)
    return total, counts.completed, failed, stopped + (left if is_over else 0), 0 if is_over else left


def _find_usd(sources: Sources, now: float) -> float | None:
    if sources.receipt is not None:
        return sources.receipt.usd
    if sources.entries:
        return sum_usd(sources.entries, now)
    return sources.status.usd_so_far if sources.status else None


def _find_usage(sources: Sources) -> Usage | None:
    holders: Sequence[Receipt | Progress | Status | None] = (sources.receipt, sources.progress, sources.status)
    return next((each.usage for each in holders if each is not None), None)
