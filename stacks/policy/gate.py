"""The policy in force: finds and loads it, refuses jobs that break it, sifts offers. Called by validate and by planning."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from providers.cloud import Offer
from providers.gpus import resolve_gpu
from providers.settings import load_cloud_settings
from schemas.errors import PolicyError, Problem, SpecError
from schemas.home_path import expand_home
from schemas.job import Candidate, Job, LoadedJob
from schemas.policy import Policy, load_policy
from schemas.shown_path import show_path
from schemas.template import Template
from schemas.yaml_source import KeyPath, place_problem
from stacks.launch.launch import make_engine_launch
from stacks.policy.policy import Breach, PolicyResult, Removed, list_breaches, remove_candidates, sift_offers
from stacks.run_folder import PROJECT

CODE = "policy."
_VARIABLE = "LEASEHOLD_POLICY"


def load_policy_in_force(environ: Mapping[str, str], project: Path = PROJECT) -> Policy | None:
    """The policy that $LEASEHOLD_POLICY names, else policy.yaml beside Pulumi.yaml; None where there is none.

    Raises SpecError for one that cannot be read, as a policy that is silently not there would protect nothing.
    """
    named = environ.get(_VARIABLE, "").strip()
    path = expand_home(named) if named else project / "policy.yaml"
    # A link that leads nowhere is a policy that cannot be read.
    if not named and not path.exists() and not path.is_symlink():
        return None
    if named and not path.exists():
        fix = "Correct the path, or unset the variable."
        raise SpecError(f"there is no policy file {show_path(path)}", where=_VARIABLE, fix=fix)
    policy = load_policy(Path(show_path(path)))
    _check_gpus(policy)
    return policy


class PolicyGate:
    """A job that the policy lets through: what may be asked of the clouds, and what of their offers may be taken.

    Raises PolicyError for a job that breaks a rule whatever is offered. Without a policy everything goes through.
    """

    def __init__(self, loaded: LoadedJob, environ: Mapping[str, str]) -> None:
        self.policy = load_policy_in_force(environ)
        self.job = loaded.job
        self.asked = loaded.job
        self.removed: list[Removed] = []
        if self.policy is None:
            return
        breaches, removed = _judge(self.policy, loaded, environ)
        if breaches:
            raise _make_refusal(self.policy, loaded.job, breaches)
        self.removed.extend(removed.values())
        self.asked = _without(loaded.job, removed)

    def sift(self, offers: Sequence[tuple[Candidate, Sequence[Offer]]]) -> Sequence[tuple[Candidate, Sequence[Offer]]]:
        """The offers that may be taken; raises PolicyError when there were some and none is left."""
        if self.policy is None:
            return offers
        kept, removed = sift_offers(self.policy, self.job, offers)
        self.removed.extend(removed)
        if removed and not any(found for _, found in kept):
            raise _make_empty(self.policy, self.job, self.removed)
        return kept

    @property
    def result(self) -> PolicyResult | None:
        """What to keep with the plan."""
        if self.policy is None:
            return None
        return PolicyResult(
            file=Path(self.policy.source).name,
            rules=self.policy.rules,
            removed=tuple(self.removed),
            notify=self.policy.notify,
        )


def list_policy_problems(loaded: LoadedJob, environ: Mapping[str, str]) -> tuple[list[Problem], list[Problem]]:
    """What the policy refuses as far as it can be told offline, and, as warnings, the candidates that it removes."""
    policy = load_policy_in_force(environ)
    if policy is None:
        return [], []
    breaches, removed = _judge(policy, loaded, environ)
    problems = [_place(loaded.job, breach) for breach in breaches]
    if any(breach.path == _CANDIDATES for breach in breaches):
        return problems, []
    return problems, [_place(loaded.job, _as_breach(each)) for each in removed.values()]


def is_policy_problem(problem: Problem) -> bool:
    return problem.code.startswith(CODE)


_CANDIDATES: KeyPath = ("machines", "candidates")


def _judge(policy: Policy, loaded: LoadedJob, environ: Mapping[str, str]) -> tuple[list[Breach], dict[int, Removed]]:
    """The rules that the job breaks, one of them when no candidate is left, and the candidates that go."""
    breaches = list(list_breaches(policy, loaded))
    find_image = functools.partial(
        find_image_of, template=loaded.template, runpod_image=load_cloud_settings(environ).runpod_image
    )
    removed = remove_candidates(policy, loaded.job, find_image)
    if len(removed) == len(loaded.job.machines.candidates):
        reasons = "; ".join(dict.fromkeys(each.why for each in removed.values()))
        breaches.append(
            Breach(
                rule=next(iter(removed.values())).rule,
                message=f"the policy leaves no candidate: {reasons}",
                fix="Add a candidate that the policy allows.",
                path=_CANDIDATES,
            )
        )
    return breaches, removed


def find_image_of(candidate: Candidate, *, template: Template, runpod_image: str) -> str:
    """The container image that a rented machine of this candidate would run."""
    if candidate.cloud == "runpod":
        return candidate.image or runpod_image
    offer = Offer(
        cloud=candidate.cloud, gpu=candidate.gpu, gpu_id="", count=candidate.count, memory_gb=1, price_usd_per_hour=0
    )
    try:
        return make_engine_launch(template, offer, port=1, image=candidate.image, checks_gpu=False).image
    except SpecError:
        return candidate.image or template.spec.engine.image


def _without(job: Job, removed: Mapping[int, Removed]) -> Job:
    left = tuple(each for index, each in enumerate(job.machines.candidates) if index not in removed)
    return msgspec.structs.replace(job, machines=msgspec.structs.replace(job.machines, candidates=left))


def _make_refusal(policy: Policy, job: Job, breaches: Sequence[Breach]) -> PolicyError:
    told = [f"{each.message} [{CODE}{each.rule}]" for each in breaches]
    fixes = "\n  ".join(dict.fromkeys(each.fix for each in breaches))
    return PolicyError(
        "\n".join(told), where=show_path(job.source), fix=f"{fixes}{_name(policy)}", rule=breaches[0].rule
    )


def _make_empty(policy: Policy, job: Job, removed: Sequence[Removed]) -> PolicyError:
    counts = Counter(each.rule for each in removed)
    rule, _ = counts.most_common(1)[0]
    listed = ", ".join(f"{name} removed {count}" for name, count in counts.most_common())
    example = next(each.why for each in removed if each.rule == rule)
    return PolicyError(
        f"the policy leaves no offer: {listed}; for example: {example} [{CODE}{rule}]",
        where=show_path(job.source),
        fix=f"Add a candidate that the policy allows; ./inv offers shows what there is.{_name(policy)}",
        rule=rule,
    )


def _name(policy: Policy) -> str:
    return f" The policy is {show_path(policy.source)}."


def _as_breach(removed: Removed) -> Breach:
    return Breach(
        rule=removed.rule,
        message=f"the policy removes this candidate: {removed.why}",
        fix="Remove it, or change it.",
        path=(*_CANDIDATES, removed.candidate - 1),
    )


def _place(job: Job, breach: Breach) -> Problem:
    return place_problem(Path(job.source), breach.path, breach.message, code=CODE + breach.rule, fix=breach.fix)


def _check_gpus(policy: Policy) -> None:
    """Raise SpecError for a name that no GPU has: it would forbid everything."""
    problems = []
    for index, name in enumerate(policy.gpus):
        try:
            if "*" not in name:
                resolve_gpu(name)
        except SpecError as error:
            problems.append(
                place_problem(Path(policy.source), ("gpus", index), error.what, code="unknown_gpu", fix=error.fix)
            )
    if problems:
        raise SpecError("the policy names a GPU that is not known", where=show_path(policy.source), problems=problems)
