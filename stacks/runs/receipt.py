"""What a run has cost: receipt.json, made once at the end from the ledger, the proof and the dispatcher's counts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from providers.cloud import BillingCloud
from providers.lease.intents import make_offer_key
from providers.open_clouds import open_clouds
from schemas.errors import LeaseholdError
from schemas.files import replace_file
from schemas.status import Progress, Usage
from schemas.version import LeaseholdVersion
from stacks.planning.experience import Measured, name_weights
from stacks.planning.plan import Plan
from stacks.planning.span import Span
from stacks.run_folder import RunFolder
from stacks.runs.ledger import LedgerEntry, read_closed_ledger, sum_usd
from stacks.runs.not_run import count_not_run
from stacks.runs.run_status import read_progress

VERSION = 1


class MachineReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """One machine; seconds from its create to its absence, USD by list price and, where the cloud tells, as billed.

    boot_s: until it joined; work_s: from then to the last result; idle_s: from then until it was gone. gpu, count and
    region are those of the offer, "" and 0 in receipts that are older than these fields.
    """

    index: int
    cloud: str
    id: str
    name: str
    offer: str
    gpu: str = ""
    count: int = 0
    region: str = ""
    seconds: float
    boot_s: float
    work_s: float
    idle_s: float
    usd_per_hour: float
    usd: float
    billed_usd: float | None = None
    proven_gone: bool


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was expected and what came. error: by how much of the likely figure, 0.5 is half as much again; None: of 0."""

    expected: Span
    actual: float
    error: float | None = None


class EstimateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The plan's estimate beside what the run needed; hours from the first create to the last machine gone."""

    usd: Comparison
    hours: Comparison
    prompt_tokens: Comparison | None = None
    output_tokens: Comparison | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """receipt.json; usd is by list price over the seconds that each machine was there.

    Requests and usage are those of the whole results, what was taken over from an earlier run included; the price of a
    million tokens counts only what this run's machines made. requests_not_run: those that were stopped before their turn.
    boot_s, work_s, idle_s: of all machines together. check: the estimate against what came, None for a run without machines.
    measured: what the next plan of this deployment learns from; None where nothing was to be learned. leasehold: as the plan.
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
    requests_not_run: int = 0
    usage: Usage
    boot_s: float = 0.0
    work_s: float = 0.0
    idle_s: float = 0.0
    machines: tuple[MachineReceipt, ...]
    released: bool
    check: EstimateCheck | None = None
    measured: Measured | None = None
    leasehold: LeaseholdVersion | None = None


def make_receipt(folder: RunFolder, plan: Plan, now: float) -> Receipt:
    """Add everything up; asks clouds that tell for what they billed."""
    entries = read_closed_ledger(folder)
    progress = read_progress(folder)
    machines = tuple(_make_line(entry, plan, progress, now) for entry in entries)
    usd = sum_usd(entries, now)
    usage = progress.usage if progress else Usage()
    own = _subtract(usage, plan.taken_over.usage) if plan.taken_over else usage
    tokens = own.input_tokens + own.output_tokens
    billed = [each.billed_usd for each in machines if each.billed_usd is not None]
    not_run = count_not_run(folder)
    return Receipt(
        run=plan.run,
        job=plan.job.name,
        usd=round(usd, 4),
        billed_usd=round(sum(billed), 4) if billed else None,
        estimated_usd=(plan.estimate.low_usd, plan.estimate.likely_usd, plan.estimate.high_usd),
        usd_per_million_tokens=round(usd / tokens * 1_000_000, 4) if tokens > 0 and usd else None,
        requests_completed=progress.request_counts.completed if progress else 0,
        requests_failed=max(0, progress.request_counts.failed - not_run) if progress else 0,
        requests_not_run=not_run,
        usage=usage,
        boot_s=round(sum(each.boot_s for each in machines), 1),
        work_s=round(sum(each.work_s for each in machines), 1),
        idle_s=round(sum(each.idle_s for each in machines), 1),
        machines=machines,
        released=all(entry.gone_at is not None for entry in entries),
        check=_check_estimate(plan, entries, own, now) if entries else None,
        measured=_measure(plan, machines, progress, own) if progress else None,
        leasehold=plan.leasehold,
    )


def _subtract(whole: Usage, part: Usage) -> Usage:
    return Usage(
        input_tokens=whole.input_tokens - part.input_tokens,
        cached_tokens=whole.cached_tokens - part.cached_tokens,
        output_tokens=whole.output_tokens - part.output_tokens,
        reasoning_tokens=whole.reasoning_tokens - part.reasoning_tokens,
    )


def _check_estimate(plan: Plan, entries: Sequence[LedgerEntry], own: Usage, now: float) -> EstimateCheck:
    estimate = plan.estimate
    hours = (max(each.gone_at or now for each in entries) - min(each.created_at for each in entries)) / 3600
    usd = Span(low=estimate.low_usd, likely=estimate.likely_usd, high=estimate.high_usd)
    time = Span(low=estimate.low_hours, likely=estimate.likely_hours, high=estimate.high_hours)
    basis = estimate.basis
    return EstimateCheck(
        usd=_compare(usd, round(sum_usd(entries, now), 4)),
        hours=_compare(time, round(hours, 4)),
        prompt_tokens=_compare(basis.prompt_tokens.span, own.input_tokens) if basis else None,
        output_tokens=_compare(basis.output_tokens.span, own.output_tokens) if basis else None,
    )


def _compare(expected: Span, actual: float) -> Comparison:
    error = round(actual / expected.likely - 1, 4) if expected.likely else None
    return Comparison(expected=expected, actual=actual, error=error)


def _measure(plan: Plan, machines: Sequence[MachineReceipt], progress: Progress, own: Usage) -> Measured | None:
    """What the run shows about its template, when all machines that worked were of one kind."""
    worked = [each for each in machines if each.work_s > 0]
    kinds = {(each.gpu, each.count) for each in worked}
    taken = plan.taken_over.answers if plan.taken_over else 0
    answered = progress.request_counts.completed - taken
    if len(kinds) != 1 or answered <= 0 or not plan.input.requests:
        return None
    gpu, count = kinds.pop()
    is_one_cloud = len({each.cloud for each in worked}) == 1
    share = min(1.0, answered / plan.input.requests)
    return Measured(
        run=plan.run,
        job=plan.job.name,
        template=plan.template.reference,
        model=name_weights(plan.template),
        gpu=gpu,
        count=count,
        cloud=worked[0].cloud if is_one_cloud else "",
        engine_args=plan.template.spec.engine_args,
        requests=answered,
        bytes=plan.input.bytes * share,
        max_output_tokens=0 if plan.input.requests_without_max_tokens else plan.input.max_tokens_sum * share,
        prompt_tokens=own.input_tokens,
        output_tokens=own.output_tokens,
        machines=len(worked),
        work_s=round(sum(each.work_s for each in worked), 1),
        boot_s=round(sum(each.boot_s for each in worked) / len(worked), 1) if is_one_cloud else None,
        is_emulated=worked[0].cloud in plan.emulated,
    )


def save_receipt(folder: RunFolder, receipt: Receipt) -> None:
    replace_file(folder.receipt, msgspec.json.format(msgspec.json.encode(receipt)) + b"\n")


def load_receipt(folder: RunFolder) -> Receipt | None:
    """The receipt of a run that has ended, else None."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(folder.receipt.read_bytes(), type=Receipt)
    return None


def _make_line(entry: LedgerEntry, plan: Plan, progress: Progress | None, now: float) -> MachineReceipt:
    offer = next((each.offer for each in plan.choices if make_offer_key(each.offer) == entry.offer), None)
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
        gpu=offer.gpu if offer else "",
        count=offer.count if offer else 0,
        region=offer.region if offer else "",
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
