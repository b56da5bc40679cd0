"""Which machines to replace after a failure, within the job's limits. Pure; the life cycle acts on it by another `up`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from providers.lease.intents import make_offer_key
from stacks.planning.plan import Plan
from stacks.runs.attempts import Attempt
from stacks.runs.ledger import LedgerEntry

MAX_ATTEMPTS = 4


def choose_replacements(
    plan: Plan,
    *,
    attempts: Mapping[int, Attempt],
    ledger: Sequence[LedgerEntry],
    failed_to_boot: Iterable[int],
    died: Iterable[int],
    now: float,
) -> dict[int, Attempt]:
    """New attempts for the machines that may be replaced; the offer that failed is left out.

    A machine that died at work may come from the same offer again when no other is left; one that never booted may not,
    and none is replaced once machines that never worked have cost limits.boot_usd.
    """
    limit = plan.job.limits.boot_usd
    if limit is not None and _sum_boot_usd(ledger, now) >= limit:
        return {}
    offers = {make_offer_key(choice.offer) for choice in plan.choices}
    replaced: dict[int, Attempt] = {}
    for index, may_repeat in [*((each, False) for each in failed_to_boot), *((each, True) for each in died)]:
        following = _raise_attempt(attempts.get(index, Attempt()), _find_offer(ledger, index), offers, may_repeat)
        if following is not None:
            replaced[index] = following
    return replaced


def _raise_attempt(before: Attempt, offer: str | None, offers: set[str], may_repeat: bool) -> Attempt | None:
    if before.attempt >= MAX_ATTEMPTS:
        return None
    left_out = {*before.left_out, *([offer] if offer else [])}
    if offers <= left_out:
        if not may_repeat:
            return None
        left_out -= {offer}
    return Attempt(attempt=before.attempt + 1, left_out=tuple(sorted(left_out)))


def _find_offer(ledger: Sequence[LedgerEntry], index: int) -> str | None:
    return next((entry.offer for entry in reversed(ledger) if entry.index == index), None)


def _sum_boot_usd(ledger: Sequence[LedgerEntry], now: float) -> float:
    return sum(entry.usd(now) for entry in ledger if entry.joined_at is None)
