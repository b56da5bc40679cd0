"""One job of a command that runs several: its plan, its run once it has started, and how it ended. Made by many_jobs."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from schemas.errors import Interrupted, LeaseholdError, SpecError
from schemas.status import Released, RequestCounts, Status
from stacks.planning.plan import Plan
from stacks.run_folder import RunFolder
from stacks.runs.death_watch import DeathWatch
from stacks.runs.receipt import load_receipt
from stacks.runs.run_status import is_over, read_status


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one job of several went, as `--json` prints it; run is "" for a job that was never started."""

    job: str
    run: str
    state: str
    released: Released
    request_counts: RequestCounts
    usd: float
    exit_code: int
    message: str


class JobTurn:
    """A job that waits, runs, or has ended: exactly one of the three at any time."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.plan: Plan | None = None
        self.planned_at = 0.0
        self.folder: RunFolder | None = None
        self.status: Status | None = None
        self.error: LeaseholdError | None = None
        self.not_run = 0
        self._deaths: DeathWatch | None = None

    @property
    def is_waiting(self) -> bool:
        return self.folder is None and self.error is None

    @property
    def is_running(self) -> bool:
        return self.folder is not None and not self.is_ended

    @property
    def is_ended(self) -> bool:
        return self.error is not None or is_over(self.status)

    @property
    def may_still_cost(self) -> bool:
        """It has started, and nobody has proven yet that its machines are gone."""
        is_unproven = self.status is not None and self.status.released == "unverified"
        return self.folder is not None and (not self.is_ended or self.error is not None or is_unproven)

    @property
    def limit_usd(self) -> float:
        """The most that this job may cost; 0 for one that costs nothing."""
        limit = self.plan.job.limits.max_usd if self.plan else None
        return limit or 0.0

    @property
    def usd(self) -> float:
        return self.status.usd_so_far if self.status else 0.0

    def take_plan(self, plan: Plan) -> None:
        self.plan = plan
        self.planned_at = time.monotonic()

    def renew_plan(self, plan: Plan) -> None:
        """Today's plan of the same job; raises SpecError when its file or template says something else than was agreed to.

        Consent, the common budget and the outputs were judged by the first plan.
        """
        if self.plan is not None and (plan.job, plan.template) != (self.plan.job, self.plan.template):
            what = "not started: the job or its template was changed while it waited"
            raise SpecError(what, where=str(self.file), fix="Run it again, as it is now.")
        self.take_plan(plan)

    def take_folder(self, folder: RunFolder) -> None:
        self.folder = folder
        self._deaths = DeathWatch(folder)

    def fail(self, error: LeaseholdError) -> None:
        self.error = error

    def look(self) -> None:
        """Read what the run says now; a run whose life cycle has died has failed."""
        if self.folder is None or self.is_ended:
            return
        self.status = read_status(self.folder) or self.status
        if is_over(self.status):
            receipt = load_receipt(self.folder)
            self.not_run = receipt.requests_not_run if receipt else 0
        elif self._deaths is not None:
            self.error = self._deaths.find_death(self.status)

    def sum_up(self) -> JobResult:
        """How it is, or how it ended; "starting" until its life cycle has said anything."""
        status = self.status
        error = self.error or Interrupted("not started")
        code = status.exit_code if status and self.error is None else error.exit_code
        return JobResult(
            job=str(self.file),
            run=self.folder.run if self.folder else "",
            state=status.state if status else "starting" if self.is_running else "not started",
            released=status.released if status else "no",
            request_counts=status.request_counts if status else RequestCounts(),
            usd=self.usd,
            exit_code=1 if code is None else code,
            message=error.what if status is None or self.error else status.message,
        )
