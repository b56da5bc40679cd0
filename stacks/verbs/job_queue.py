"""Which of several jobs may start now, and what they amount to together: pure rules. Called by many_jobs."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import LimitError, SpecError
from stacks.verbs.job_turn import JobTurn

# What is worst comes first: one code stands for all jobs.
_SEVERITY = (12, 130, 1, 4, 3, 6, 11, 5, 8, 7, 10, 2)


def combine_exit_codes(codes: Sequence[int]) -> int:
    """0 when every job's is; else the worst: a release that is not verified before all others."""
    found = set(codes) - {0}
    known = (code for code in _SEVERITY if code in found)
    return next(known, 1 if found else 0)


def pick_next(turns: Sequence[JobTurn], *, parallel: int, max_usd: float | None) -> JobTurn | None:
    """The first waiting job that may start now; None while there is no room for it, in number or in money.

    A job counts with all that it may spend until it has ended, then with what it has spent, so that the budget holds
    whatever happens. Jobs keep their order: a cheap one does not overtake one that waits for money.
    """
    waiting = [turn for turn in turns if turn.is_waiting]
    if not waiting or sum(turn.is_running for turn in turns) >= parallel:
        return None
    if max_usd is not None and _reserved(turns) + waiting[0].limit_usd > max_usd + 1e-9:
        return None
    return waiting[0]


def find_hopeless(turns: Sequence[JobTurn], *, max_usd: float | None) -> tuple[JobTurn, LimitError] | None:
    """The first waiting job that cannot start any more, since nothing runs that could end below its limit."""
    waiting = [turn for turn in turns if turn.is_waiting]
    if max_usd is None or not waiting or any(turn.is_running for turn in turns):
        return None
    left = max_usd - _reserved(turns)
    if waiting[0].limit_usd <= left + 1e-9:
        return None
    what = f"not started: it may cost {waiting[0].limit_usd:.2f} USD and {max(left, 0):.2f} of --max-usd are left"
    fix = "Raise --max-usd, or lower the job's limits.max_usd."
    return waiting[0], LimitError(what, where=str(waiting[0].file), fix=fix)


def refuse_shared_outputs(turns: Sequence[JobTurn]) -> None:
    """Raises SpecError when two jobs would write to one folder."""
    seen: dict[str, JobTurn] = {}
    for turn in turns:
        output = turn.plan.job.output if turn.plan else None
        if not output:
            continue
        if output in seen:
            what = f"{turn.file} and {seen[output].file} have the same output"
            raise SpecError(what, where=str(output), fix="Give each job an output of its own, or leave it out.")
        seen[output] = turn


def _reserved(turns: Sequence[JobTurn]) -> float:
    """USD that are spent, or may still be: by what runs, and by machines that nobody watches or that may be left."""
    return sum(max(turn.limit_usd, turn.usd) if turn.may_still_cost else turn.usd for turn in turns)
