"""Makes the plan: ranks the offers, estimates, and refuses what the job's limits forbid. Pure; called by planning."""

from __future__ import annotations

from collections.abc import Sequence

from providers.choice import Choice
from providers.cloud import Offer
from providers.lease.intents import make_offer_key
from schemas.errors import LimitError, NoCapacity
from schemas.job import Candidate, Job
from schemas.shown_path import show_path
from schemas.template import Template
from schemas.version import LeaseholdVersion
from stacks.planning.basis import choose_basis
from stacks.planning.estimate import Estimate, InputSummary, make_estimate
from stacks.planning.experience import Measured
from stacks.planning.left_out import list_too_dear, name_kind
from stacks.planning.plan import LeftOut, Plan, PlannedMachine


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
        left_out=(*left_out, *list_too_dear(job, offers)),
        emulated=tuple(emulated),
        leasehold=leasehold,
    )


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


def _describe_dear(ranked: Sequence[Choice]) -> str:
    nearest = sorted({(each.offer.price_usd_per_hour, name_kind(each.offer)) for each in ranked})[:3]
    listed = ", ".join(f"{kind} at {price:.2f}" for price, kind in nearest)
    return f"every offer costs more per hour than its candidate allows; the nearest in USD: {listed}"


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
        sum_ = f"{estimate.low_hours:.2f} h of {times}{name_kind(first)} at {first.price_usd_per_hour:.2f} USD/h"
        raise LimitError(
            f"even the low estimate, {estimate.low_usd:.2f} USD ({sum_}), is over limits.max_usd ({limit:.2f})",
            where=show_path(job.source),
            fix="Raise limits.max_usd, use --limit N for a trial, or choose a cheaper machine.",
        )
