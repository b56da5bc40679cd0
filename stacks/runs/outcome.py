"""How a run ended: state, exit code and one sentence, from what the dispatcher and the machines' failures say. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.errors import (
    CancelledError,
    CloudError,
    EngineError,
    ExpiredError,
    Interrupted,
    LeaseholdError,
    NoCapacity,
    ReleaseError,
    RequestsFailed,
)
from schemas.failure import Failure
from schemas.status import Progress, State, StopReason


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    state: State
    exit_code: int
    message: str


def judge_progress(progress: Progress, *, interrupted: bool = False) -> Outcome | None:
    """The outcome once the dispatcher has said its last word; None while it works."""
    counts = progress.request_counts
    if progress.state == "failed":
        return Outcome(state="failed", exit_code=RequestsFailed.exit_code, message=progress.message)
    if progress.state == "stopped" and progress.stop_reason is not None:
        return judge_stop(progress.stop_reason, progress, interrupted=interrupted)
    if progress.state != "finished":
        return None
    done = f"{counts.completed:,} of {counts.total:,} requests answered"
    if counts.failed == 0:
        return Outcome(state="completed", exit_code=0, message=done)
    state: State = "failed" if counts.failed >= counts.total else "completed"
    return Outcome(state=state, exit_code=RequestsFailed.exit_code, message=f"{done}, {counts.failed:,} failed")


def judge_stop(reason: StopReason, progress: Progress | None, *, interrupted: bool) -> Outcome:
    """The outcome of a batch that was stopped before its end."""
    counts = progress.request_counts if progress else None
    kept = f"; {counts.completed:,} of {counts.total:,} answers are kept" if counts else ""
    if reason == "batch_cancelled":
        code = Interrupted.exit_code if interrupted else CancelledError.exit_code
        return Outcome(state="cancelled", exit_code=code, message=f"stopped by the user{kept}")
    what = "the time of the lease is used up" if reason == "batch_expired" else "limits.max_usd is used up"
    return Outcome(state="expired", exit_code=ExpiredError.exit_code, message=f"{what}{kept}")


def judge_failures(failures: Sequence[Failure], engine_messages: Sequence[str], other: Sequence[str]) -> Outcome:
    """The outcome when too few machines joined: an engine's failure says most, then the last machine's."""
    if engine_messages:
        return Outcome(state="submit_failed", exit_code=EngineError.exit_code, message=engine_messages[-1])
    telling = [failure for failure in failures if failure.kind != CancelledError.__name__]
    if not telling:
        message = other[-1] if other else "no machine joined, and nothing says why"
        return Outcome(state="resource_failed", exit_code=CloudError.exit_code, message=message)
    last = telling[-1]
    without_capacity = [failure for failure in telling if failure.exit_code == NoCapacity.exit_code]
    code = last.exit_code if len(without_capacity) in (0, len(telling)) else CloudError.exit_code
    return Outcome(state="resource_failed", exit_code=code, message=last.message)


def judge_error(error: BaseException) -> Outcome:
    """The outcome of a life cycle that could not go on."""
    code = error.exit_code if isinstance(error, LeaseholdError) else 1
    return Outcome(state="failed", exit_code=code, message=str(error) or type(error).__name__)


def choose_exit_code(outcome: Outcome, *, released: bool) -> int:
    """An unproven release wins over everything else."""
    return outcome.exit_code if released else ReleaseError.exit_code
