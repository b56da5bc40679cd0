"""What a run has cost: receipt.json, made once at the end from the ledger, the proof and the dispatcher's counts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from providers.cloud import BillingCloud
from providers.lease import LEASE_FILE, load_lease
from providers.open_clouds import open_clouds
from schemas.errors import LeaseholdError
from schemas.files import replace_file
from schemas.status import Progress, Usage
from stacks.ledger import LedgerEntry, read_ledger, sum_usd
from stacks.plan import Plan
from stacks.run_folder import RunFolder
from stacks.run_status import read_progress

VERSION = 1


class MachineReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """One machine; seconds from its create to its absence, USD by list price and, where the cloud tells, as billed.

    boot_s: until it joined; work_s: from then to the last result; idle_s: from then until it was gone.
    """

    index: int
    cloud: str
    id: str
    name: str
    offer: str
    seconds: float
    boot_s: float
    work_s: float
    idle_s: float
    usd_per_hour: float
    usd: float
    billed_usd: float | None = None
    proven_gone: bool


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """receipt.json; usd is by list price over the seconds that each machine was there.

    Requests and usage are those of the whole results, what was taken over from an earlier run included; the price of a
    million tokens counts only what this run's machines made.
    """

    version: int = VERSION
    run: str
    job: str
    usd: float
    billed_usd: float | None = None
    estimated_usd: tuple[float, float, float]
    usd_per_million_tokens: float | None = None
    requests_completed: int
    requests_failed: int
    usage: Usage
    machines: tuple[MachineReceipt, ...]
    released: bool


def make_receipt(folder: RunFolder, plan: Plan, now: float) -> Receipt:
    """Add everything up; asks clouds that tell for what they billed."""
    entries = _close(read_ledger(folder), folder)
    progress = read_progress(folder)
    machines = tuple(_make_line(entry, progress, now) for entry in entries)
    usd = sum_usd(entries, now)
    usage = progress.usage if progress else Usage()
    tokens = _count_tokens(usage) - (_count_tokens(plan.taken_over.usage) if plan.taken_over else 0)
    billed = [each.billed_usd for each in machines if each.billed_usd is not None]
    return Receipt(
        run=plan.run,
        job=plan.job.name,
        usd=round(usd, 4),
        billed_usd=round(sum(billed), 4) if billed else None,
        estimated_usd=(plan.estimate.low_usd, plan.estimate.likely_usd, plan.estimate.high_usd),
        usd_per_million_tokens=round(usd / tokens * 1_000_000, 4) if tokens > 0 and usd else None,
        requests_completed=progress.request_counts.completed if progress else 0,
        requests_failed=progress.request_counts.failed if progress else 0,
        usage=usage,
        machines=machines,
        released=all(entry.gone_at is not None for entry in entries),
    )


def _count_tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens


def save_receipt(folder: RunFolder, receipt: Receipt) -> None:
    replace_file(folder.receipt, msgspec.json.format(msgspec.json.encode(receipt)) + b"\n")


def load_receipt(folder: RunFolder) -> Receipt | None:
    """The receipt of a run that has ended, else None."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(folder.receipt.read_bytes(), type=Receipt)
    return None


def _close(entries: Sequence[LedgerEntry], folder: RunFolder) -> list[LedgerEntry]:
    """Machines that nobody saw go are gone at the latest when the lease's proof was made."""
    proven_at = None
    if (folder.root / LEASE_FILE).exists():
        with contextlib.suppress(LeaseholdError):
            proof = load_lease(folder.root).proof
            proven_at = proof.proven_at if proof else None
    return [
        msgspec.structs.replace(entry, gone_at=entry.gone_at or proven_at) if proven_at else entry for entry in entries
    ]


def _make_line(entry: LedgerEntry, progress: Progress | None, now: float) -> MachineReceipt:
    end = entry.gone_at or now
    joined = entry.joined_at or (progress.first_sent_at if progress and progress.first_sent_at else end)
    joined = min(max(joined, entry.created_at), end)
    last = min(max((progress.ended_at if progress else None) or joined, joined), end)
    return MachineReceipt(
        index=entry.index,
        cloud=entry.cloud,
        id=entry.id,
        name=entry.name,
        offer=entry.offer,
        seconds=round(end - entry.created_at, 1),
        boot_s=round(joined - entry.created_at, 1),
        work_s=round(last - joined, 1),
        idle_s=round(end - last, 1),
        usd_per_hour=entry.price_usd_per_hour,
        usd=round(entry.usd(now), 4),
        billed_usd=_ask_billed(entry, end),
        proven_gone=entry.gone_at is not None,
    )


def _ask_billed(entry: LedgerEntry, end: float) -> float | None:
    with contextlib.suppress(LeaseholdError):
        cloud = open_clouds([entry.cloud])[entry.cloud]
        if isinstance(cloud, BillingCloud):
            return cloud.billed_usd(entry.id, start=entry.created_at - 60, end=end + 60)
    return None
