"""The life cycle of a run: one process of its own, `python -m stacks.lifecycle FOLDER`, started by `./inv run`.

    plan (made before) -> up -> follow -> collect -> destroy -> prove -> receipt

It owns status.json, asks the dispatcher to stop when time, money or the user say so, replaces machines that failed, and
gives everything back whatever happened before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from providers.clock import SystemClock
from providers.lease.lease import LEASE_FILE, revoke_lease
from providers.open_clouds import open_clouds
from schemas.errors import LeaseholdError
from schemas.events import append_event
from schemas.failure import read_failures
from schemas.status import Progress, State, StopReason
from stacks.lifecycle.budget import BudgetCare
from stacks.lifecycle.dispatcher_care import DispatcherCare
from stacks.lifecycle.machine_care import MachineCare
from stacks.lifecycle.up_care import UpCare
from stacks.notifications.lone_courier import start_courier
from stacks.notifications.notifier import Notifier
from stacks.planning.plan import load_plan
from stacks.process_mark import mark_process
from stacks.releasing.release import release_run
from stacks.releasing.release_speed import note_release_speed
from stacks.run_folder import RunFolder
from stacks.runs.batch_stop import finish_results, stop_dispatcher
from stacks.runs.collecting import collect_records, collect_results
from stacks.runs.ledger import LedgerEntry, read_joined, read_ledger
from stacks.runs.outcome import Outcome, choose_exit_code, judge_error, judge_failures, judge_progress, judge_stop
from stacks.runs.receipt import make_receipt, save_receipt
from stacks.runs.run_processes import RunProcesses, save_processes
from stacks.runs.run_status import StatusWriter, read_progress
from stacks.stack import LIFECYCLE_MARK, Stack
from stacks.stack_call import ResourceFailure, StackCall
from stacks.terminal.count_words import count_things

_POLL_S = 0.2


class Lifecycle:
    """One run from `up` to the receipt; `run` returns the exit code and raises nothing."""

    def __init__(self, folder: RunFolder, home: Path, environment: Mapping[str, str], *, keep: bool) -> None:
        self.folder = folder
        self.home = home
        self.environment = {**environment, LIFECYCLE_MARK: "1"}
        self.keep = keep
        self.plan = load_plan(folder.plan)
        self.writer = StatusWriter(folder, self.plan.job.name, self.plan.requests)
        self.interrupted = False
        self.failures: list[ResourceFailure] = []
        self.judged: StackCall | None = None
        self.release_message = ""
        self.stopped_for: StopReason | None = None
        self.machines = MachineCare(folder, self.plan)
        self.dispatcher = DispatcherCare(folder)
        self.budget = BudgetCare(folder, self.plan)
        self.notifier = Notifier(folder, self.plan, self.environment)
        self.mark = mark_process(os.getpid())

    def run(self) -> int:
        save_processes(self.folder, RunProcesses(lifecycle=self.mark))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear_signal)
        try:
            outcome = self._work()
        except Exception as error:
            self._log_unexpected(error)
            outcome = judge_error(error)
        released = self._release()
        with self._suppress_and_log():
            note_release_speed(self.folder)
        code = self._end(outcome, released)
        self.notifier.close()
        if os.getsid(0) == self.mark.pid:
            start_courier(self.folder, self.environment)
        return code

    def _work(self) -> Outcome:
        self.writer.enter("resource_preparing", f"making {count_things(len(self.plan.machines), 'machine')}")
        stack = Stack(self.plan.run, self.folder.root, self.home, self.environment)
        stack.init()
        care = UpCare(
            self.folder,
            stack,
            parallel=max(32, 5 * len(self.plan.machines)),
            config={"job": self.plan.job.source},
            on_call=self._record_call,
        )
        self.budget.refresh(read_ledger(self.folder))
        up = care.start()
        try:
            # Loads what ends machines, while they are made: at the end the checkout may be a newer one.
            open_clouds(self.plan.clouds)
            while True:
                outcome = self._look(care, up)
                if outcome is not None:
                    return outcome
                if not up.is_running():
                    up = self._start_next_up(care, up)
                time.sleep(_POLL_S)
        finally:
            self._stop_up(up)

    def _start_next_up(self, care: UpCare, up: StackCall) -> StackCall:
        """Another `up` where one is due: machines are to be replaced, or the last one was killed. Else the last one."""
        replacements = self.machines.find_replacements(self.failures)
        if replacements:
            self.machines.replace(replacements)
        if self._is_cut_off(care, up):
            return care.start_again(up, self.failures)
        return care.start() if replacements else up

    def _look(self, care: UpCare, up: StackCall) -> Outcome | None:
        """One look at everything that can end the batch; None to go on."""
        progress = read_progress(self.folder)
        if progress is not None:
            outcome = judge_progress(progress, interrupted=self.interrupted)
            if outcome is not None:
                return outcome
        ledger = read_ledger(self.folder)
        reason = self._find_stop_reason(ledger)
        if reason is not None:
            return self._stop_batch(reason)
        self._show_progress(progress, ledger)
        self._take_care(ledger)
        if not up.is_running():
            self._take_failures(up)
            return None if self._is_cut_off(care, up) else self._judge_up()
        return None

    def _find_stop_reason(self, ledger: Sequence[LedgerEntry]) -> StopReason | None:
        if self.interrupted or self.folder.cancel.exists():
            return "batch_cancelled"
        if time.time() >= self.plan.created_at + self.plan.lifetime_s:
            return "batch_expired"
        if self.budget.is_used_up(ledger):
            return "budget_exceeded"
        return None

    def _show_progress(self, progress: Progress | None, ledger: Sequence[LedgerEntry]) -> None:
        if progress is not None and progress.state in ("running", "draining"):
            self._advance("in_progress", "requests are being answered")
        elif self.writer.status.machines:
            self._advance("submitting", "machines are there; starting their engines")
        self.notifier.watch_budget(self.writer.refresh(ledger))

    def _take_care(self, ledger: Sequence[LedgerEntry]) -> None:
        self.budget.refresh(ledger)
        self.dispatcher.keep_alive()
        self.machines.bound_boot_money(ledger)
        self.machines.chase_strays()

    def _advance(self, state: State, message: str) -> None:
        order: list[State] = ["queued", "resource_preparing", "submitting", "in_progress"]
        if self.writer.status.state in order and order.index(state) > order.index(self.writer.status.state):
            self.writer.enter(state, message)

    def _take_failures(self, up: StackCall) -> None:
        """Remember why resources of an `up` that has ended failed; read once a call."""
        if self.judged is not up:
            self.judged = up
            self.failures = up.failures()

    def _is_cut_off(self, care: UpCare, up: StackCall) -> bool:
        """Whether an `up` that has ended was killed before every machine had joined, and may be started again."""
        is_whole = len(read_joined(self.folder)) >= len(self.plan.machines)
        return not is_whole and care.is_due_again(up, self.failures)

    def _judge_up(self) -> Outcome | None:
        """After `up` has ended: enough machines, or a replacement that is due, or the reason why not."""
        joined, alive = len(read_joined(self.folder)), self.machines.count_alive()
        if alive and joined >= self.plan.job.machines.min_replicas:
            return None
        if self.machines.find_replacements(self.failures):
            return None
        engines = [_describe_engine(each) for each in self.failures if each.name.startswith("engine-")]
        others = [each.message for each in self.failures]
        if joined and not alive:
            death = self.machines.watch.last_death
            others.append(f"every machine that had joined died, and none may be replaced; the last: {death}")
        outcome = judge_failures(read_failures(self.folder.failures), engines, others)
        progress = read_progress(self.folder)
        if progress is not None and progress.first_sent_at is not None:
            stop_dispatcher(self.folder, "batch_cancelled")
        return outcome

    def _record_call(self, call: StackCall) -> None:
        with contextlib.suppress(OSError):  # that process notes its own id as well, and nothing here may leave it alone
            save_processes(self.folder, RunProcesses(lifecycle=self.mark, pulumi=call.mark))

    def _stop_up(self, up: StackCall) -> None:
        """End an `up` that still runs: creates poll the lease, so revoking it ends them; then SIGINT, twice, then kill."""
        if up.is_running():
            self._revoke()
            for patience_s in (3, 5, 15):
                if up.wait(patience_s) is not None:
                    break
                up.interrupt()
            if up.wait(0.1) is None:
                up.end()

    def _stop_batch(self, reason: StopReason) -> Outcome:
        self.writer.enter("cancelling" if reason == "batch_cancelled" else "finalizing", f"stopping: {reason}")
        if reason == "budget_exceeded":
            self.notifier.watch_budget(self.writer.status, usd=self.plan.job.limits.max_usd)
        self.stopped_for = reason
        stop_dispatcher(self.folder, reason)
        return judge_stop(reason, read_progress(self.folder), interrupted=self._was_interrupted())

    def _was_interrupted(self) -> bool:
        with contextlib.suppress(OSError):
            return self.interrupted or self.folder.cancel.read_text().strip() == "interrupted"
        return self.interrupted

    def _revoke(self) -> None:
        if (self.folder.root / LEASE_FILE).exists():
            with contextlib.suppress(LeaseholdError):
                revoke_lease(self.folder.root, clock=SystemClock(), timeout_s=150)

    def _release(self) -> bool:
        """Give everything back, whatever was before; say whether that is proven."""
        if self.writer.status.state not in ("cancelling",):
            self.writer.enter("finalizing", "giving the machines back")
        outcome = release_run(
            self.folder,
            self.home,
            self.environment,
            keep_stack=self.keep,
            on_call=self._record_call,
            on_notice=lambda text: self._note("release_notice", text),
        )
        self.release_message = outcome.message
        return outcome.verified

    def _end(self, outcome: Outcome, released: bool) -> int:
        code = choose_exit_code(outcome, released=released)
        message = outcome.message if released else f"{outcome.message}\n{self.release_message}"
        try:
            if self.stopped_for is not None:
                finish_results(self.folder, self.stopped_for)
            collect_results(self.folder, self.plan.job)
        except (LeaseholdError, OSError) as error:
            copy = f"./inv results {self.folder.run} --output DIR"
            why = error.strerror if isinstance(error, OSError) else error
            message += f"\nthe results could not be copied to {self.plan.job.output} ({why}): {copy}"
            # Whoever waits for them in S3 may have nothing else: then a run is not done.
            code = code or (error.exit_code if isinstance(error, LeaseholdError) else 0)
        with self._suppress_and_log():
            save_receipt(self.folder, make_receipt(self.folder, self.plan, time.time()))
        status = self.writer.end(outcome.state, "verified" if released else "unverified", code, message)
        with self._suppress_and_log():
            collect_records(self.folder, self.plan.job)
        self.notifier.tell_end(status)
        self._note("run_ended", f"{status.state}, released: {status.released}, exit code {code}")
        return code

    def _note(self, event: str, text: str) -> None:
        append_event(self.folder.events, "release", event, text)

    def _hear_signal(self, _number: int, _frame: object) -> None:
        self.interrupted = True

    def _log_unexpected(self, error: BaseException) -> None:
        if not isinstance(error, LeaseholdError):
            _log(error)

    @contextlib.contextmanager
    def _suppress_and_log(self) -> Iterator[None]:
        """For what comes after the release: its failure is noted and costs nothing more."""
        try:
            yield
        except Exception as error:
            _log(error)
            self._note("after_run_failed", f"{type(error).__name__}: {error}")


def _log(error: BaseException) -> None:
    """To the life cycle's log, where there is room for it."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error, file=sys.stderr)


def _describe_engine(failure: ResourceFailure) -> str:
    """What an engine's start said, without its progress lines."""
    lines = [line for line in failure.message.splitlines() if not line.startswith("engine: starting on port")]
    return "\n  ".join([f"the engine of machine {failure.name.removeprefix('engine-')} did not start", *lines])


def start_lifecycle(folder: RunFolder, environment: Mapping[str, str], *, keep: bool, detached: bool) -> int:
    """Start the life cycle's process and return its id; detached ones survive this terminal."""
    with folder.lifecycle_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stacks.lifecycle", str(folder.root), *(["--keep"] if keep else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=detached,
        )
    return process.pid
