"""Which offers the needs and price limits of a job's candidates have removed, so that a plan can say what a limit
costs. Called by the planning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from providers.cloud import Offer
from providers.gpus import resolve_gpu
from providers.interconnect import is_connected
from providers.lease.intents import make_offer_key
from schemas.job import Candidate, Job
from stacks.planning.plan import LeftOut


def find_left_out(
    job: Job,
    offers: Sequence[tuple[Candidate, Sequence[Offer]]],
    *,
    ask: Callable[[Candidate], Sequence[Offer]],
) -> list[LeftOut]:
    """What is available beyond a candidate's regions, memory and interconnect; `ask` fetches what its cloud has without these."""
    found: list[LeftOut] = []
    for candidate, offered in offers:
        if not _may_leave_out(candidate):
            continue
        kept = {make_offer_key(offer) for offer in offered}
        wide = [offer for offer in ask(candidate) if offer.available and make_offer_key(offer) not in kept]
        number = _number_candidate(job, candidate)
        small = [offer for offer in wide if offer.memory_gb < candidate.min_gb]
        elsewhere = [offer for offer in wide if offer.memory_gb >= candidate.min_gb and _is_elsewhere(offer, candidate)]
        if small:
            found.append(_describe_left_out(number, f"min_gb {candidate.min_gb}", small))
        rest = [each for each in wide if each not in small and each not in elsewhere]
        apart = [each for each in rest if not is_connected(each.gpu, each.gpu_id, candidate.interconnect)]
        if apart:
            found.append(_describe_left_out(number, f"interconnect {candidate.interconnect}", apart))
        if elsewhere:
            found.append(_describe_left_out(number, f"regions {', '.join(candidate.regions)}", elsewhere))
    return found


def list_too_dear(job: Job, offers: Sequence[tuple[Candidate, Sequence[Offer]]]) -> list[LeftOut]:
    """What each candidate's own price limit removes of the offers."""
    found = []
    for candidate, offered in offers:
        number = _number_candidate(job, candidate)
        limit = candidate.max_usd_per_hour
        dear = [offer for offer in offered if limit is not None and offer.price_usd_per_hour > limit]
        if dear and limit is not None:
            found.append(_describe_left_out(number, f"max_usd_per_hour {limit:.2f}", dear))
    return found


def name_kind(offer: Offer) -> str:
    """An offer without its region: the same kind costs the same in many."""
    return " ".join(word for word in (offer.cloud, offer.gpus, offer.tier) if word)


def _may_leave_out(candidate: Candidate) -> bool:
    """Whether it is worth a question: most jobs name one GPU, which has the memory that it has."""
    if candidate.cloud == "local":
        return False
    least_gb = resolve_gpu(candidate.gpu).memory_gb if candidate.gpu else 0
    return bool(candidate.regions or candidate.interconnect) or least_gb < candidate.min_gb


def _is_elsewhere(offer: Offer, candidate: Candidate) -> bool:
    """An offer without a region leaves the choice to the cloud and names no other place."""
    wanted = {region.upper() for region in candidate.regions}
    return bool(wanted) and offer.region != "" and offer.region.upper() not in wanted


def _number_candidate(job: Job, candidate: Candidate) -> int:
    """Which of the job's candidates it is, the first is 1; 0 for one that is not the job's own."""
    found = (number for number, each in enumerate(job.machines.candidates, start=1) if each == candidate)
    return next(found, 0)


def _describe_left_out(candidate: int, limit: str, offers: Sequence[Offer]) -> LeftOut:
    """What one limit of a candidate has removed; there is at least one offer."""
    cheapest = sorted(offers, key=lambda offer: offer.price_usd_per_hour)
    return LeftOut(
        candidate=candidate,
        limit=limit,
        offers=len(offers),
        cheapest_usd_per_hour=cheapest[0].price_usd_per_hour,
        kinds=tuple(dict.fromkeys(name_kind(offer) for offer in cheapest)),
    )
