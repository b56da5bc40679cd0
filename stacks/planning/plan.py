"""The plan: the frozen decision of what to rent and run. Pure; saved once as plan.json, then always the saved one is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from providers.choice import Choice
from providers.cloud import Offer
from providers.lease.intents import make_offer_key
from runtime.objects.output_prefix import InputObject
from schemas.errors import LimitError, NoCapacity, SpecError
from schemas.files import create_file
from schemas.job import Candidate, Job
from schemas.shown_path import show_path
from schemas.status import Usage
from schemas.template import Template
from schemas.version import LeaseholdVersion
from stacks.planning.basis import choose_basis
from stacks.planning.estimate import Estimate, InputSummary, make_estimate
from stacks.planning.experience import Measured
from stacks.policy.policy import PolicyResult

VERSION = 1
# How long a release may try to prove that nothing is left before it says that it could not.
RELEASE_DEADLINE_S = 600.0


class PlannedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One of the run's machines; engine_port is unique within the run, since local machines share one computer."""

    index: int
    engine_port: int


class TakenOver(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has from an earlier one: answers with the tokens that they had cost there, and final failures."""

    mode: Literal["resume", "retry"]
    answers: int
    failures: int
    usage: Usage = Usage()


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Offers that a limit of one candidate (the first is 1) has removed. kinds: cloud, GPU and tier, the cheapest first."""

    candidate: int
    limit: str
    offers: int
    cheapest_usd_per_hour: float
    kinds: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was decided before anything costs money. choices are tried in this order; line_limit 0 means all.

    lifetime_s: how long the lease lasts. settle_s: how long an unclear create may stay invisible. resumes: the earlier run
    whose results were taken over, "" for none; then `input` counts only what is left. staged: the job's input in S3 as it
    was when it was counted; the run reads the copy in its own folder. emulated: clouds that were emulators. leasehold: which one
    has decided this, None in plans from before that was kept.
    """

    version: int = VERSION
    run: str
    created_at: float
    job: Job
    template: Template
    input: InputSummary
    line_limit: int = 0
    choices: tuple[Choice, ...]
    machines: tuple[PlannedMachine, ...]
    lifetime_s: float
    settle_s: float
    estimate: Estimate
    left_out: tuple[LeftOut, ...] = ()
    resumes: str = ""
    taken_over: TakenOver | None = None
    staged: InputObject | None = None
    policy: PolicyResult | None = None
    emulated: tuple[str, ...] = ()
    leasehold: LeaseholdVersion | None = None

    @property
    def requests(self) -> int:
        """All requests of the run, those taken over included."""
        taken = self.taken_over
        return self.input.requests + (taken.answers + taken.failures if taken else 0)

    @property
    def clouds(self) -> tuple[str, ...]:
        """The clouds that any machine of this plan may be on."""
        return tuple(dict.fromkeys(choice.offer.cloud for choice in self.choices))


def make_plan(
    *,
    run: str,
    job: Job,
    template: Template,
    summary: InputSummary,
    offers: Sequence[tuple[Candidate, Sequence[Offer]]],
    ports: Sequence[int],
    settle_s: float,
    now: float,
    line_limit: int = 0,
    measured: Sequence[Measured] = (),
    left_out: Sequence[LeftOut] = (),
    emulated: Sequence[str] = (),
    leasehold: LeaseholdVersion | None = None,
) -> Plan:
    """Rank the offers and freeze the decision; raises NoCapacity without offers and LimitError for what limits forbid.

    measured: what earlier runs' receipts have shown, newest first. left_out: what the candidates' needs have removed already.
    """
    choices = _rank(job, offers)
    first = choices[0].offer
    lifetime_s = _choose_lifetime(job)
    is_emulated = first.cloud in emulated
    estimate = make_estimate(
        choose_basis(job, template, first, summary, [each for each in measured if each.is_emulated == is_emulated]),
        replicas=job.machines.replicas,
        usd_per_hour=first.price_usd_per_hour,
        max_usd=job.limits.max_usd,
        max_hours=lifetime_s / 3600,
    )
    _refuse_too_dear(job, estimate, first)
    return Plan(
        run=run,
        created_at=now,
        job=job,
        template=template,
        input=summary,
        line_limit=line_limit,
        choices=choices,
        machines=tuple(PlannedMachine(index=index, engine_port=ports[index]) for index in range(job.machines.replicas)),
        lifetime_s=lifetime_s,
        settle_s=settle_s,
        estimate=estimate,
        left_out=(*left_out, *_list_too_dear(job, offers)),
        emulated=tuple(emulated),
        leasehold=leasehold,
    )


def save_plan(plan: Plan, path: Path) -> Plan:
    """Write the plan durably unless there is one already; the saved one is returned."""
    create_file(path, msgspec.json.format(msgspec.json.encode(plan)))
    return load_plan(path)


def load_plan(path: Path) -> Plan:
    """Read a saved plan; raises SpecError when it is missing, torn or of another version."""
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != VERSION:
            raise SpecError(f"the plan has version {version}; this Leasehold reads {VERSION}", where=str(path))
        return msgspec.json.decode(data, type=Plan)
    except FileNotFoundError as error:
        raise SpecError("this run has no plan", where=str(path), fix="Is it the right run? ./inv status") from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SpecError(f"the plan cannot be read: {error}", where=str(path)) from error


class _Versioned(msgspec.Struct):
    """All that is sure about a plan of another version."""

    version: int


def _rank(job: Job, offers: Sequence[tuple[Candidate, Sequence[Offer]]]) -> tuple[Choice, ...]:
    ranked = [_make_choice(candidate, offer) for candidate, found in offers for offer in found]
    if not ranked:
        raise NoCapacity("no cloud offers what the job asks for", where=show_path(job.source), fix="See ./inv offers.")
    affordable = [
        _make_choice(candidate, offer)
        for candidate, found in offers
        for offer in found
        if candidate.max_usd_per_hour is None or offer.price_usd_per_hour <= candidate.max_usd_per_hour
    ]
    if not affordable:
        raise LimitError(
            _describe_dear(ranked), where=show_path(job.source), fix="Raise max_usd_per_hour, or add a candidate."
        )
    if job.machines.rank == "price":
        affordable.sort(key=lambda choice: choice.offer.price_usd_per_hour)
    affordable.sort(key=lambda choice: not choice.offer.available)
    unique = {make_offer_key(choice.offer): choice for choice in reversed(affordable)}
    return tuple(sorted(unique.values(), key=affordable.index))


def number_candidate(job: Job, candidate: Candidate) -> int:
    """Which of the job's candidates it is, the first is 1; 0 for one that is not the job's own."""
    found = (number for number, each in enumerate(job.machines.candidates, start=1) if each == candidate)
    return next(found, 0)


def describe_left_out(candidate: int, limit: str, offers: Sequence[Offer]) -> LeftOut:
    """What one limit of a candidate has removed; there is at least one offer."""
    cheapest = sorted(offers, key=lambda offer: offer.price_usd_per_hour)
    return LeftOut(
        candidate=candidate,
        limit=limit,
        offers=len(offers),
        cheapest_usd_per_hour=cheapest[0].price_usd_per_hour,
        kinds=tuple(dict.fromkeys(_name_kind(offer) for offer in cheapest)),
    )


def _list_too_dear(job: Job, offers: Sequence[tuple[Candidate, Sequence[Offer]]]) -> list[LeftOut]:
    found = []
    for candidate, offered in offers:
        number = number_candidate(job, candidate)
        limit = candidate.max_usd_per_hour
        dear = [offer for offer in offered if limit is not None and offer.price_usd_per_hour > limit]
        if dear and limit is not None:
            found.append(describe_left_out(number, f"max_usd_per_hour {limit:.2f}", dear))
    return found


def _describe_dear(ranked: Sequence[Choice]) -> str:
    nearest = sorted({(each.offer.price_usd_per_hour, _name_kind(each.offer)) for each in ranked})[:3]
    listed = ", ".join(f"{kind} at {price:.2f}" for price, kind in nearest)
    return f"every offer costs more per hour than its candidate allows; the nearest in USD: {listed}"


def _name_kind(offer: Offer) -> str:
    """An offer without its region: the same kind costs the same in many."""
    return " ".join(word for word in (offer.cloud, offer.gpus, offer.tier) if word)


def _make_choice(candidate: Candidate, offer: Offer) -> Choice:
    named = {
        "network_volume": candidate.network_volume,
        "file_system": candidate.file_system,
        "min_cuda": candidate.min_cuda,
    }
    return Choice(
        offer=offer,
        image=candidate.image,
        disk_gb=candidate.disk_gb,
        settings={name: value for name, value in named.items() if value},
    )


def _choose_lifetime(job: Job) -> float:
    hours = job.limits.max_hours
    return min(job.completion_window_s, hours * 3600) if hours is not None else job.completion_window_s


def _refuse_too_dear(job: Job, estimate: Estimate, first: Offer) -> None:
    limit = job.limits.max_usd
    if limit is not None and estimate.low_usd > limit:
        times = f"{job.machines.replicas} x " if job.machines.replicas > 1 else ""
        sum_ = f"{estimate.low_hours:.2f} h of {times}{_name_kind(first)} at {first.price_usd_per_hour:.2f} USD/h"
        raise LimitError(
            f"even the low estimate, {estimate.low_usd:.2f} USD ({sum_}), is over limits.max_usd ({limit:.2f})",
            where=show_path(job.source),
            fix="Raise limits.max_usd, use --limit N for a trial, or choose a cheaper machine.",
        )
