"""A run's folder as one frozen record: everything that its report shows, and what is not known. Called by report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from schemas.errors import LeaseholdError
from schemas.status import Event
from schemas.version import LeaseholdVersion
from stacks.planning.plan import Plan, load_plan
from stacks.releasing.release import is_proven
from stacks.report.durations import Steps, Timing, make_timing
from stacks.report.errors import ErrorReport, read_errors
from stacks.report.estimate import Expectation, compare_estimate
from stacks.report.facts import FactGroup, OfferLine, list_facts, list_offers, name_offers
from stacks.report.machines import (
    MachineBar,
    MachineFinder,
    Trouble,
    list_troubles,
    load_entries,
    make_bars,
    make_labels,
    read_all_events,
)
from stacks.report.outcome import Outcome, Sources, make_outcome
from stacks.report.series import STATS_FILE, Series, read_series
from stacks.run_folder import RunFolder
from stacks.runs.receipt import load_receipt
from stacks.runs.run_processes import is_lifecycle_alive
from stacks.runs.run_status import read_progress, read_status
from stacks.terminal.count_words import count_things
from toolchain.version import find_version

_Found = TypeVar("_Found")


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows; times are seconds since 1970. gaps: sentences that say what is not known and why.

    leasehold: what made this record; what made the run stands among the facts. labels: what machines of the series are
    called, by their key.
    """

    run: str
    job: str
    made_at: float
    leasehold: LeaseholdVersion
    outcome: Outcome
    bars: tuple[MachineBar, ...]
    troubles: tuple[Trouble, ...]
    series: Series | None
    timing: Timing | None
    labels: dict[int, str]
    errors: ErrorReport | None
    estimate: tuple[Expectation, ...]
    assumptions: tuple[str, ...]
    offers: tuple[OfferLine, ...]
    left_out: tuple[str, ...]
    facts: tuple[FactGroup, ...]
    events: tuple[Event, ...]
    gaps: tuple[str, ...]


class _Reading:
    """Reads part after part; one that cannot be read leaves a gap, not an error."""

    def __init__(self) -> None:
        self.gaps: list[str] = []

    def tell(self, sentence: str) -> None:
        self.gaps.append(sentence)

    def take(self, what: str, read: Callable[[], _Found], otherwise: _Found) -> _Found:
        try:
            return read()
        except (OSError, LeaseholdError, ValueError) as error:
            self.tell(f"{what}: {_tell_reason(error)}.")
            return otherwise


def make_report(folder: RunFolder, *, now: float) -> RunReport:
    """Read everything once. now: seconds since 1970, the end of what has not ended."""
    reading = _Reading()
    sources = _read_sources(folder, reading)
    plan = sources.plan
    outcome = make_outcome(sources, now)
    events: tuple[Event, ...] = reading.take("What happened when", lambda: read_all_events(folder), ())
    bars = make_bars(
        sources.entries,
        progress=sources.progress,
        events=events,
        receipt=sources.receipt,
        offers=name_offers(plan) if plan else {},
        now=now,
    )
    series, noted = _read_series(folder, sources, reading)
    return RunReport(
        run=folder.run,
        job=plan.job.name if plan else sources.status.job if sources.status else "",
        made_at=now,
        leasehold=find_version(),
        outcome=outcome,
        bars=bars,
        troubles=reading.take("What did not work", lambda: list_troubles(folder), ()),
        series=series,
        timing=_make_timing(sources, noted),
        labels=_name_machines(sources, series),
        errors=sources.errors,
        estimate=compare_estimate(plan, outcome, bars) if plan else (),
        assumptions=plan.estimate.assumptions if plan else (),
        offers=list_offers(plan, sources.entries) if plan else (),
        left_out=_describe_left_out(plan),
        facts=list_facts(folder, plan, tell=reading.tell) if plan else (),
        events=events,
        gaps=tuple(reading.gaps),
    )


def _tell_reason(error: Exception) -> str:
    """One line without its place: a report is shown to others."""
    if isinstance(error, LeaseholdError):
        return error.what
    return error.strerror or "cannot be read" if isinstance(error, OSError) else "cannot be read"


def _read_sources(folder: RunFolder, reading: _Reading) -> Sources:
    status, progress, receipt = read_status(folder), read_progress(folder), load_receipt(folder)
    for path, found, loses in (
        (folder.status, status, "state, release and cost are told from other files"),
        (folder.progress, progress, "counts and tokens may be old"),
        (folder.receipt, receipt, "the cost is added up from list prices, nothing billed is known"),
    ):
        if found is None and path.exists():
            reading.tell(f"{path.name} cannot be read: {loses}.")
    if status is None and not folder.status.exists():
        reading.tell("There is no status.json: state, release and cost are told from other files.")
    return Sources(
        folder=folder,
        plan=_read_plan(folder, reading),
        status=status,
        progress=progress,
        receipt=receipt,
        entries=reading.take("The machines", lambda: load_entries(folder), ()),
        errors=_read_errors(folder, reading),
        is_alive=is_lifecycle_alive(folder),
        is_proven=reading.take("Whether everything was given back", lambda: is_proven(folder), False),
    )


def _read_plan(folder: RunFolder, reading: _Reading) -> Plan | None:
    sentence = "The plan, versions and digests, and the estimate"
    return reading.take(sentence, lambda: load_plan(folder.plan), None)


def _read_errors(folder: RunFolder, reading: _Reading) -> ErrorReport | None:
    found = reading.take("The failed lines", lambda: read_errors(folder), None)
    if found is not None and found.unreadable:
        reading.tell(f"{found.unreadable:,} line(s) among the failed ones cannot be read.")
    return found


def _read_series(folder: RunFolder, sources: Sources, reading: _Reading) -> tuple[Series | None, Steps]:
    finder = MachineFinder(sources.entries)
    started_at = sources.progress.first_sent_at if sources.progress else None
    path = folder.root / STATS_FILE
    found = reading.take(
        "Rates and durations",
        lambda: read_series(path, find_machine=finder.find, started_at=started_at),
        None,
    )
    if found is None:
        return None, {}
    series, noted = found
    if series.unreadable:
        reading.tell(f"{series.unreadable:,} line(s) of {STATS_FILE} cannot be read.")
    return series, noted


def _make_timing(sources: Sources, noted: Steps) -> Timing | None:
    progress = sources.progress
    taken = sources.plan.taken_over.answers if sources.plan and sources.plan.taken_over else 0
    # A dispatcher that has just begun again has not counted yet what is done.
    has_counts = progress is not None and progress.request_counts.total > 0
    answered = progress.request_counts.completed - taken if progress and has_counts else None
    return make_timing(progress.durations if progress else None, noted, answered=answered)


def _name_machines(sources: Sources, series: Series | None) -> dict[int, str]:
    names = dict(enumerate(make_labels(sources.entries)))
    unknown = [each.key for each in series.machines if each.key < 0] if series else []
    return names | {key: str(-1 - key) for key in unknown}


def _describe_left_out(plan: Plan | None) -> tuple[str, ...]:
    if plan is None:
        return ()
    dear = [
        f"candidate {each.candidate}: {each.limit} leaves out {count_things(each.offers, 'offer')}, the cheapest at"
        f" {each.cheapest_usd_per_hour:.2f} USD/h"
        for each in plan.left_out
    ]
    removed = plan.policy.removed if plan.policy else ()
    return (*dear, *(f"candidate {each.candidate}: {each.rule} ({each.why})" for each in removed))
