"""Runs several jobs in one command: so many at a time, within one budget, with one table. Called by `run`.

Each job is a run of its own with its own life cycle; this process only starts them in order and watches.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.live import Live

from schemas.errors import Interrupted, LeaseholdError, LimitError, SpecError
from stacks.terminal.console import WORDS, ask, leave_room, print_data
from stacks.verbs.follow import request_cancel
from stacks.verbs.job_flags import JobFlags
from stacks.verbs.job_queue import combine_exit_codes, find_hopeless, pick_next, refuse_shared_outputs
from stacks.verbs.job_turn import JobTurn
from stacks.verbs.jobs_table import render_turns
from stacks.verbs.start import launch_run, prepare_run
from stacks.verbs.start_options import StartOptions

# Offers and prices change: a plan that has waited longer is drawn up again when the job's turn comes.
_PLAN_LASTS_S = 120.0
_POLL_S = 0.2


def run_jobs_of_flags(
    files: Sequence[Path],
    environment: Mapping[str, str],
    *,
    parallel: str,
    max_usd: str,
    line_limit: int,
    options: StartOptions,
) -> int:
    """`run_jobs` with its numbers as they were typed; raises SpecError for what is none."""
    if parallel and (not parallel.isdecimal() or int(parallel) < 1):
        fix = "Leave it out for one after the other."
        raise SpecError(f"--parallel takes a number of jobs from 1 on, not {parallel!r}", fix=fix)
    return run_jobs(
        files,
        environment,
        parallel=int(parallel or 1),
        max_usd=_parse_usd(max_usd),
        line_limit=line_limit,
        options=options,
    )


def refuse_flags_of_one_job(flags: Mapping[str, object], of_a_job: JobFlags) -> None:
    """Raises SpecError for flags that make no sense with several jobs, such as those that stand for a job's file."""
    given = [name for name, value in flags.items() if value]
    given += [name for name in of_a_job.list_given() if name != "--max-usd"]
    if given:
        raise SpecError(
            f"{' and '.join(given)} is for one job", fix="Run the jobs in commands of their own, or leave it out."
        )


def _parse_usd(text: str) -> float | None:
    if not text:
        return None
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise SpecError(f"--max-usd takes an amount of USD above 0, not {text!r}", fix="Such as --max-usd 25.")


def run_jobs(
    files: Sequence[Path],
    environment: Mapping[str, str],
    *,
    parallel: int = 1,
    max_usd: float | None = None,
    line_limit: int = 0,
    options: StartOptions,
) -> int:
    """Plan all, ask once, run `parallel` at a time; one that fails does not stop the others. Returns the worst exit code.

    max_usd: over all jobs together; a job starts only if all that it may spend is left. Raises SpecError, and starts
    nothing, when a file is wrong.
    """
    turns = [JobTurn(file) for file in files]
    _plan_all(turns, line_limit)
    refuse_shared_outputs(turns)
    if not all(turn.is_ended for turn in turns):
        WORDS.print(render_turns(turns))
    if options.confirm:
        _ask_consent(turns)

    def launch(turn: JobTurn) -> None:
        if time.monotonic() - turn.planned_at > _PLAN_LASTS_S:
            turn.renew_plan(prepare_run(turn.file, line_limit=line_limit))
        assert turn.plan is not None
        turn.take_folder(launch_run(turn.plan, environment, keep=options.keep, detached=not options.foreground))

    _Queue(turns, launch, parallel=parallel, max_usd=max_usd).run()
    results = [turn.sum_up() for turn in turns]
    WORDS.print(render_turns(turns))
    if options.as_json:
        print_data(results)
    return combine_exit_codes([result.exit_code for result in results])


def _plan_all(turns: Sequence[JobTurn], line_limit: int) -> None:
    """A wrong file stops everything, with all that is wrong in all files; what a cloud or a limit refuses, only its job."""
    wrong: list[SpecError] = []
    for turn in turns:
        try:
            turn.take_plan(prepare_run(turn.file, line_limit=line_limit))
        except SpecError as error:
            wrong.append(error)
        except LeaseholdError as error:
            turn.fail(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise SpecError(
            f"{len(wrong)} of {len(turns)} jobs cannot be run; nothing was started",
            fix="\n  ".join(str(error).replace("\n", "\n  ") for error in wrong),
        )


def _ask_consent(turns: Sequence[JobTurn]) -> None:
    plans = [turn.plan for turn in turns if turn.plan is not None and turn.plan.job.costs_money]
    if not plans:
        return
    low, high = sum(plan.estimate.low_usd for plan in plans), sum(plan.estimate.high_usd for plan in plans)
    if not sys.stdin.isatty():
        WORDS.print("nobody to ask: going on within the jobs' own limits", style="yellow")
        return
    question = f"Rent machines for {len(plans)} jobs, {low:.2f} to {high:.2f} USD in all?"
    if not ask(question):
        raise LimitError("not started: you said no")


class _Queue:
    """Starts what may start and watches what runs, until every job has ended."""

    def __init__(
        self, turns: Sequence[JobTurn], launch: Callable[[JobTurn], None], *, parallel: int, max_usd: float | None
    ) -> None:
        self._turns = turns
        self._launch = launch
        self._parallel = parallel
        self._max_usd = max_usd
        self._is_interrupted = False
        self._is_interrupt_told = False
        self._told: dict[JobTurn, str] = {}

    def run(self) -> None:
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if WORDS.is_terminal:
                with Live(console=WORDS, refresh_per_second=4, transient=True) as live:
                    self._loop(lambda: live.update(leave_room(render_turns(self._turns), WORDS)))
            else:
                self._loop(self._tell_changes)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _loop(self, show: Callable[[], None]) -> None:
        while any(not turn.is_ended for turn in self._turns):
            for turn in self._turns:
                turn.look()
            self._tell_interrupt()
            self._start_next()
            show()
            time.sleep(_POLL_S)
        show()

    def _tell_interrupt(self) -> None:
        if self._is_interrupted and not self._is_interrupt_told:
            self._is_interrupt_told = True
            WORDS.print("Cancelling all jobs: keeping what is finished, giving the machines back ...")

    def _start_next(self) -> None:
        if self._is_interrupted:
            for turn in self._turns:
                self._stop(turn)
            return
        hopeless = find_hopeless(self._turns, max_usd=self._max_usd)
        if hopeless is not None:
            hopeless[0].fail(hopeless[1])
            return
        following = pick_next(self._turns, parallel=self._parallel, max_usd=self._max_usd)
        if following is None:
            return
        try:
            self._launch(following)
        except LeaseholdError as error:
            following.fail(error)

    def _stop(self, turn: JobTurn) -> None:
        if turn.is_waiting:
            turn.fail(Interrupted("not started: interrupted"))
        elif turn.is_running and turn.folder is not None:
            request_cancel(turn.folder, "interrupted")

    def _hear(self, _number: int, _frame: object) -> None:
        # Nothing is printed here: in the middle of a redraw it would leave a stale line behind.
        self._is_interrupted = True

    def _tell_changes(self) -> None:
        """Without a terminal: a line whenever a job's state changes."""
        for turn in self._turns:
            result = turn.sum_up()
            state = "waiting" if turn.is_waiting else result.state
            if self._told.get(turn) == state:
                continue
            self._told[turn] = state
            message = result.message.splitlines()[0] if turn.is_ended and result.message else ""
            words = message if message.startswith(state) else f"{state}: {message}" if message else state
            WORDS.print(f"{time.strftime('%H:%M:%S')}  {result.run or turn.file}  {words}")
