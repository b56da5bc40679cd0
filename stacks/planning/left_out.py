"""Which offers the needs of a job's candidates have removed, so that a plan can say what a limit costs. Called by the planning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from providers.cloud import Offer
from providers.gpus import resolve_gpu
from providers.interconnect import is_connected
from providers.lease.intents import make_offer_key
from schemas.job import Candidate, Job
from stacks.planning.plan import LeftOut, describe_left_out, number_candidate


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
        number = number_candidate(job, candidate)
        small = [offer for offer in wide if offer.memory_gb < candidate.min_gb]
        elsewhere = [offer for offer in wide if offer.memory_gb >= candidate.min_gb and _is_elsewhere(offer, candidate)]
        if small:
            found.append(describe_left_out(number, f"min_gb {candidate.min_gb}", small))
        rest = [each for each in wide if each not in small and each not in elsewhere]
        apart = [each for each in rest if not is_connected(each.gpu, each.gpu_id, candidate.interconnect)]
        if apart:
            found.append(describe_left_out(number, f"interconnect {candidate.interconnect}", apart))
        if elsewhere:
            found.append(describe_left_out(number, f"regions {', '.join(candidate.regions)}", elsewhere))
    return found


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
