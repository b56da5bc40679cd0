"""What a run was made of, for its report: the plan's offers and limits, model, engine, input, versions, digests.

Called by stacks.report.data; the input is read once for its hash, everything else comes from the plan.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from providers.cloud import Offer
from providers.lease.intents import make_offer_key
from schemas.job import Limits
from stacks.planning.plan import Plan
from stacks.run_folder import RunFolder
from stacks.runs.ledger import LedgerEntry
from stacks.terminal.duration_words import format_duration

_INDEX_HEADER_BYTES = 4096
# A hash of more would take a minute and longer.
_MOST_HASHED_BYTES = 20 * 1024**3


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """exact: a digest, a path or an argument, to be shown letter by letter."""

    name: str
    value: str
    exact: bool = False


class FactGroup(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    facts: tuple[Fact, ...]


class OfferLine(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of the plan, in the order in which they are tried; machines: how many were made from it."""

    rank: int
    cloud: str
    gpu: str
    tier: str
    region: str
    usd_per_hour: float
    stock: str
    image: str
    machines: int


class _IndexHeader(msgspec.Struct):
    size: int
    modified_ns: int


def list_offers(plan: Plan, entries: Sequence[LedgerEntry]) -> tuple[OfferLine, ...]:
    made = [entry.offer for entry in entries]
    return tuple(
        OfferLine(
            rank=rank,
            cloud=choice.offer.cloud,
            gpu=choice.offer.gpus,
            tier=choice.offer.tier,
            region=choice.offer.region,
            usd_per_hour=choice.offer.price_usd_per_hour,
            stock=choice.offer.stock or ("" if choice.offer.available else "sold out"),
            image=choice.image,
            machines=made.count(make_offer_key(choice.offer)),
        )
        for rank, choice in enumerate(plan.choices, start=1)
    )


def name_offers(plan: Plan) -> dict[str, str]:
    """What a person calls each offer, by its key."""
    return {make_offer_key(each.offer): _name_offer(each.offer) for each in plan.choices}


def list_facts(folder: RunFolder, plan: Plan, *, tell: Callable[[str], None]) -> tuple[FactGroup, ...]:
    """Everything that somebody needs who wants to do the same again; tell hears what is not known."""
    groups = [
        ("Model and engine", _list_model(plan)),
        ("Input", _list_input(folder, plan, tell)),
        ("Machines and limits", _list_limits(plan)),
        ("Sending", _list_sending(plan)),
        ("Versions and digests", _list_versions(folder, plan)),
    ]
    return tuple(FactGroup(title=title, facts=tuple(each for each in facts if each.value)) for title, facts in groups)


def _list_model(plan: Plan) -> list[Fact]:
    spec = plan.template.spec
    source, engine, parallel, quantization = spec.model_source, spec.engine, spec.parallelism, spec.quantization
    images = dict.fromkeys(each for each in (engine.image, *(choice.image for choice in plan.choices)) if each)
    known = msgspec.structs.asdict(quantization)
    return [
        Fact(name="Template", value=plan.job.template),
        Fact(name="Model", value=source.uri, exact=True),
        Fact(name="Revision", value=source.revision or "not pinned", exact=bool(source.revision)),
        Fact(name="Served as", value=plan.template.model, exact=True),
        Fact(name="Tokenizer", value=source.tokenizer_path, exact=True),
        Fact(name="Chat template", value=source.chat_template_path, exact=True),
        Fact(name="Engine", value=" ".join(each for each in (engine.type, engine.version) if each)),
        Fact(name="Image", value=", ".join(images) or "the cloud's default", exact=bool(images)),
        Fact(name="Engine arguments", value=_join(spec.engine_args), exact=True),
        Fact(name="Further arguments", value=" ".join(engine.serve_args), exact=True),
        Fact(name="Overridden by the job", value=_join(plan.job.overrides), exact=True),
        Fact(
            name="Seed", value=str(spec.engine_args.get("seed", "none set for the engine; lines may bring their own"))
        ),
        Fact(name="Parallelism", value=_join(msgspec.structs.asdict(parallel)) if parallel.world_size > 1 else ""),
        Fact(name="Quantization", value=_join({name: value for name, value in known.items() if value}), exact=True),
    ]


def _list_input(folder: RunFolder, plan: Plan, tell: Callable[[str], None]) -> list[Fact]:
    # What came from S3 was run from its copy in the run's folder.
    size, digest = _hash_input(folder, folder.input if plan.staged else Path(plan.job.input), tell)
    taken = plan.taken_over
    return [
        Fact(name="File", value=str(plan.job.input), exact=True),
        Fact(name="Size", value=f"{size:,} bytes" if size is not None else ""),
        Fact(name="SHA-256", value=digest, exact=True),
        Fact(name="Requests", value=f"{plan.requests:,} to {plan.job.endpoint}"),
        Fact(name="Only the first", value=f"{plan.line_limit:,} lines" if plan.line_limit else ""),
        Fact(
            name="Taken over",
            value=f"{taken.answers:,} answers and {taken.failures:,} failures from {plan.resumes}" if taken else "",
        ),
        Fact(name="Output", value=str(plan.job.output) or "in the run's folder", exact=bool(plan.job.output)),
    ]


def _list_limits(plan: Plan) -> list[Fact]:
    machines, limits = plan.job.machines, plan.job.limits
    return [
        Fact(name="Machines", value=f"{machines.replicas}, at least {machines.min_replicas} to go on"),
        Fact(name="Money", value=_describe_money(limits)),
        Fact(name="Time", value=f"{format_duration(plan.lifetime_s)} until the lease expires"),
        Fact(name="Boot", value=f"{limits.boot_minutes:g} minutes a machine"),
        Fact(name="Heartbeat", value=f"a machine ends itself {limits.heartbeat_minutes:g} minutes after the last one"),
        Fact(name="Policy", value=f"{plan.policy.file}: {', '.join(plan.policy.rules)}" if plan.policy else ""),
    ]


def _list_sending(plan: Plan) -> list[Fact]:
    sending = plan.job.dispatch
    timeout = f"{sending.request_timeout_s:g} s" if sending.request_timeout_s else "from speed and max_tokens"
    return [
        Fact(
            name="In flight", value=f"{sending.max_concurrency} a machine" if sending.max_concurrency else "found out"
        ),
        Fact(name="Retries", value=str(sending.max_retries)),
        Fact(name="Request timeout", value=timeout),
        Fact(name="Order", value=f"{sending.order}{', output in input order' if sending.ordered else ''}"),
        Fact(name="Hedging", value="yes" if sending.hedge else "no"),
    ]


def _list_versions(folder: RunFolder, plan: Plan) -> list[Fact]:
    return [
        Fact(name="Leasehold", value=str(plan.leasehold) if plan.leasehold else "not noted in this plan"),
        Fact(name="Job file", value=plan.job.source, exact=True),
        Fact(name="Template file", value=plan.template.source, exact=True),
        Fact(name="SHA-256 of plan.json", value=_hash_file(folder.plan), exact=True),
        Fact(name="Metadata", value=_join(plan.job.metadata)),
    ]


def _describe_money(limits: Limits) -> str:
    whole = f"{limits.max_usd:.2f} USD" if limits.max_usd is not None else "no limit in USD"
    return whole if limits.boot_usd is None else f"{whole}, {limits.boot_usd:.2f} USD for machines that never work"


def _hash_input(folder: RunFolder, path: Path, tell: Callable[[str], None]) -> tuple[int | None, str]:
    """Size and hash of the very bytes that were run: only while size and time are those that the dispatcher noted."""
    noted = _read_index_header(folder)
    if noted is None:
        tell("The input's hash: the dispatcher has left no note of the file that it read.")
        return None, ""
    try:
        now = path.stat()
    except OSError:
        tell("The input's hash: the file is not on this computer (any more).")
        return noted.size, ""
    if (now.st_size, now.st_mtime_ns) != (noted.size, noted.modified_ns):
        tell("The input's hash: the file has been written to since the run read it.")
        return noted.size, ""
    if now.st_size > _MOST_HASHED_BYTES:
        tell("The input's hash: the file is too large to be read again for a report.")
        return noted.size, ""
    return noted.size, _hash_file(path)


def _read_index_header(folder: RunFolder) -> _IndexHeader | None:
    suppress = contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError)
    with suppress, (folder.root / "input.index").open("rb") as file:
        return msgspec.json.decode(file.read(_INDEX_HEADER_BYTES).rstrip(b" \0\n"), type=_IndexHeader)
    return None


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _name_offer(offer: Offer) -> str:
    return " ".join(each for each in (offer.cloud, offer.gpus, offer.tier, offer.region) if each)


def _join(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_render_value(value)}" for name, value in values.items())


def _render_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
