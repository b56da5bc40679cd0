"""Holds a job and its offers against the policy: which rules are broken, which candidates and offers go. Pure.

Called through the policy gate by validate, plan and run. A rule's name is its key in the policy's file.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence

import msgspec

from providers.cloud import Offer
from providers.gpus import resolve_gpu
from schemas.engine_flags import find_flags
from schemas.errors import SpecError
from schemas.job import Candidate, Job, LoadedJob
from schemas.notify import NotifyTarget
from schemas.policy import Policy
from schemas.spec_words import join_words
from schemas.template import Template
from schemas.yaml_source import KeyPath
from stacks.terminal.count_words import count_things

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_HUB = re.compile(r"^(index\.)?docker\.io/(library/)?")
_TRUST = "trust_remote_code"
FindImage = Callable[[Candidate], str]
"""The image that a rented machine of this candidate would run; "" where there is none, as on this computer."""


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that the job breaks, whatever is offered; path: where in the job."""

    rule: str
    message: str
    fix: str
    path: KeyPath = ()


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate (price None) or one offer that a rule has removed; candidate counts from 1."""

    rule: str
    why: str
    candidate: int
    cloud: str
    gpu: str = ""
    region: str = ""
    price_usd_per_hour: float | None = None


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy has done to a plan. file: its name; rules: those that forbid something."""

    file: str
    rules: tuple[str, ...]
    removed: tuple[Removed, ...] = ()
    notify: tuple[NotifyTarget, ...] = ()


def list_breaches(policy: Policy, loaded: LoadedJob) -> tuple[Breach, ...]:
    """The rules that the job itself breaks, known before any cloud is asked."""
    return tuple(breach for rule in _JOB_RULES for breach in rule(policy, loaded))


def remove_candidates(policy: Policy, job: Job, find_image: FindImage) -> dict[int, Removed]:
    """The candidates of which it is known already that none of their offers may be taken, by index."""
    found = {}
    for index, candidate in enumerate(job.machines.candidates):
        for rule, why in _judge_candidate(policy, job, candidate, find_image):
            found[index] = Removed(rule=rule, why=why, candidate=index + 1, cloud=candidate.cloud, gpu=candidate.gpu)
            break
    return found


def sift_offers(
    policy: Policy, job: Job, offers: Sequence[tuple[Candidate, Sequence[Offer]]]
) -> tuple[list[tuple[Candidate, Sequence[Offer]]], list[Removed]]:
    """The offers that may be taken, and those that a rule has removed."""
    kept: list[tuple[Candidate, Sequence[Offer]]] = []
    removed: list[Removed] = []
    for candidate, found in offers:
        allowed = []
        for offer in found:
            verdict = next(_judge_offer(policy, job, offer), None)
            if verdict is None:
                allowed.append(offer)
            else:
                removed.append(_describe_removed(verdict, job.machines.candidates.index(candidate), offer))
        kept.append((candidate, allowed))
    return kept, removed


def trusts_remote_code(template: Template) -> bool:
    """Whether the engine may run code that comes with the model, also when only a file on the machine would say so."""
    spec = template.spec
    options = [name for name, value in spec.engine_args.items() if value is not False]
    flags = find_flags(spec.engine.serve_args)
    options += [flag.option for flag in flags if not flag.word.startswith(("--no-", "--no_"))]
    # An engine takes any unique beginning of an option for the whole.
    return any(len(name) > 1 and whole.startswith(name) for name in options for whole in (_TRUST, "config"))


def is_image_allowed(image: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits the image; one without a tag or digest fits all of them."""
    named = _HUB.sub("", image)
    tagged = named.partition("@")[0]
    base = re.sub(r":[^/:]*$", "", tagged)
    return any(
        fnmatch.fnmatchcase(each, _HUB.sub("", pattern)) for pattern in patterns for each in (named, tagged, base)
    )


def _check_usd(policy: Policy, loaded: LoadedJob) -> Iterator[Breach]:
    limit, asked = policy.max_usd_per_job, loaded.job.limits.max_usd
    if limit is None or not loaded.job.costs_money or (asked is not None and asked <= limit):
        return
    what = f"limits.max_usd is {asked:g}" if asked is not None else "the job has no limits.max_usd"
    yield Breach(
        rule="max_usd_per_job",
        message=f"{what}; the policy allows {limit:g} USD a job",
        fix=f"Write `max_usd: {limit:g}` or less, or split the input.",
        path=("limits", "max_usd"),
    )


def _check_hours(policy: Policy, loaded: LoadedJob) -> Iterator[Breach]:
    job, limit = loaded.job, policy.max_hours
    window = job.completion_window_s / 3600
    hours = min(window, job.limits.max_hours if job.limits.max_hours is not None else window)
    if limit is not None and hours > limit:
        key: KeyPath = ("limits", "max_hours") if job.limits.max_hours == hours else ("completion_window",)
        yield Breach(
            rule="max_hours",
            message=f"the lease would last {hours:g} h; the policy allows {limit:g} h",
            fix=f"Write `limits.max_hours: {limit:g}` or less.",
            path=key,
        )


def _check_metadata(policy: Policy, loaded: LoadedJob) -> Iterator[Breach]:
    missing = [key for key in policy.required_metadata if not loaded.job.metadata.get(key, "").strip()]
    if missing:
        names = join_words((f"`{key}`" for key in missing), last="and")
        yield Breach(
            rule="required_metadata",
            message=f"the job's metadata has no {names}, which the policy requires",
            fix=f"Add `metadata: {{{', '.join(f'{key}: ...' for key in missing)}}}`.",
            path=("metadata",),
        )


def _check_trust(policy: Policy, loaded: LoadedJob) -> Iterator[Breach]:
    if policy.trust_remote_code or not trusts_remote_code(loaded.template):
        return
    path: KeyPath = ("template",) if loaded.template.version != "inline" else ("deploy",)
    yield Breach(
        rule=_TRUST,
        message=f"{loaded.template.reference} lets the model's own code run, which the policy forbids",
        fix="Take a model that needs no code of its own, and no --trust-remote-code or --config.",
        path=("overrides", "engine_args", _TRUST) if _TRUST in loaded.job.overrides else path,
    )


_JOB_RULES: tuple[Callable[[Policy, LoadedJob], Iterator[Breach]], ...] = (
    _check_usd,
    _check_hours,
    _check_metadata,
    _check_trust,
)


def _judge_candidate(
    policy: Policy, job: Job, candidate: Candidate, find_image: FindImage
) -> Iterator[tuple[str, str]]:
    """Rules that every offer of the candidate would break, each with the reason."""
    if policy.clouds and candidate.cloud not in policy.clouds:
        yield "clouds", f"{candidate.cloud} is not among {', '.join(policy.clouds)}"
    if policy.gpus and candidate.gpu not in ("", "cpu") and not _may_be_allowed_gpu(candidate.gpu, policy.gpus):
        yield "gpus", f"{candidate.gpu} is not among {', '.join(policy.gpus)}"
    regions = candidate.regions if candidate.cloud != "local" else ()
    if policy.regions and regions and not any(_fits(each, policy.regions) for each in regions):
        yield "regions", f"{', '.join(regions)}: not among {', '.join(policy.regions)}"
    yield from _judge_image(policy, find_image(candidate) if candidate.cloud != "local" else "")
    yield from _judge_price(policy, job, candidate.price_usd_per_hour)


def _judge_image(policy: Policy, image: str) -> Iterator[tuple[str, str]]:
    rules = policy.images
    if image and rules.allowed and not is_image_allowed(image, rules.allowed):
        yield "images.allowed", f"the image {image} is not among {', '.join(rules.allowed)}"
    if image and rules.digest_required and not _DIGEST.search(image):
        yield "images.digest_required", f"the image {image} is not named by its digest (image@sha256:...)"


def _judge_price(policy: Policy, job: Job, price_usd_per_hour: float) -> Iterator[tuple[str, str]]:
    limit, replicas = policy.max_usd_per_hour, job.machines.replicas
    total = price_usd_per_hour * replicas
    if limit is not None and total > limit + 1e-9:
        yield (
            "max_usd_per_hour",
            f"{count_things(replicas, 'machine')} at {price_usd_per_hour:.2f} USD an hour are over {limit:g}",
        )


def _judge_offer(policy: Policy, job: Job, offer: Offer) -> Iterator[tuple[str, str]]:
    if policy.clouds and offer.cloud not in policy.clouds:
        yield "clouds", f"{offer.cloud} is not among {', '.join(policy.clouds)}"
    if policy.gpus and offer.gpu != "cpu" and not _is_allowed_gpu(offer, policy.gpus):
        yield "gpus", f"{offer.gpu} is not among {', '.join(policy.gpus)}"
    if policy.regions and offer.cloud != "local" and not _fits(offer.region, policy.regions):
        where = offer.region or "a region of the cloud's choice"
        yield "regions", f"{where} is not among {', '.join(policy.regions)}"
    yield from _judge_price(policy, job, offer.price_usd_per_hour)


def _describe_removed(verdict: tuple[str, str], index: int, offer: Offer) -> Removed:
    rule, why = verdict
    return Removed(
        rule=rule,
        why=why,
        candidate=index + 1,
        cloud=offer.cloud,
        gpu=offer.gpus,
        region=offer.region,
        price_usd_per_hour=offer.price_usd_per_hour,
    )


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def _is_allowed_gpu(offer: Offer, patterns: Sequence[str]) -> bool:
    return any(_fits(name, patterns) for name in (offer.gpu, offer.gpu_id)) or offer.gpu in _list_models(patterns)


def _may_be_allowed_gpu(name: str, patterns: Sequence[str]) -> bool:
    """Whether some model that a candidate's name stands for is allowed; a name that nobody knows is told elsewhere."""
    try:
        models = resolve_gpu(name).models
    except SpecError:
        return True
    return (
        not models
        or _fits(name, patterns)
        or any(_fits(each, patterns) for each in models)
        or bool(_list_models(patterns) & set(models))
    )


def _list_models(patterns: Sequence[str]) -> set[str]:
    """Every model of the vocabulary that the names among the patterns stand for."""
    return {model for name in patterns if "*" not in name for model in (*resolve_gpu(name).models, name)}
