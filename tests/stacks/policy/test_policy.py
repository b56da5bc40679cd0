"""Every rule of a policy on both sides: what it lets through, and what it refuses or removes, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from providers.cloud import Offer
from schemas.job import Candidate, Job, Limits, LoadedJob
from schemas.policy import ImageRules, Policy
from schemas.template import Template
from stacks.policy.gate import PolicyResult, find_image_of
from stacks.policy.policy import is_image_allowed, list_breaches, remove_candidates, sift_offers, trusts_remote_code
from stacks.policy.view import describe_policy
from tests.stacks.run_files import make_h100, make_job, make_offer, make_template

PODS = Candidate(cloud="runpod", gpu="H100", max_usd_per_hour=4.0)
DIGEST = "@sha256:" + "0a" * 32


def make_policy(**rules: Any) -> Policy:
    return Policy(source="/policy.yaml", **rules)


def load(job: Job, template: Template | None = None) -> LoadedJob:
    return LoadedJob(job=job, template=template or make_template())


def change_engine(*, args: dict[str, Any] | None = None, serve_args: Sequence[str] = ()) -> Template:
    template = make_template()
    engine = msgspec.structs.replace(template.spec.engine, serve_args=tuple(serve_args))
    spec = msgspec.structs.replace(template.spec, engine=engine, engine_args=args or {})
    return msgspec.structs.replace(template, spec=spec)


def rules_broken(policy: Policy, loaded: LoadedJob) -> list[str]:
    return [breach.rule for breach in list_breaches(policy, loaded)]


def removed_by(policy: Policy, candidate: Candidate, image: str = "") -> list[str]:
    found = remove_candidates(policy, make_job(candidates=[candidate]), lambda _: image)
    return [each.rule for each in found.values()]


def kept_and_removed(policy: Policy, *offers: Offer, replicas: int = 1) -> tuple[list[str], list[str]]:
    job = make_job(candidates=[PODS], replicas=replicas)
    kept, removed = sift_offers(policy, job, [(PODS, offers)])
    return [offer.region for _, found in kept for offer in found], [each.rule for each in removed]


@pytest.mark.parametrize(("max_usd", "broken"), [(50.0, []), (50.01, ["max_usd_per_job"]), (None, ["max_usd_per_job"])])
def test_a_job_may_cost_as_much_as_the_policy_says(max_usd: float | None, broken: list[str]) -> None:
    job = make_job(candidates=[PODS], limits=Limits(max_usd=max_usd, max_hours=1))

    assert rules_broken(make_policy(max_usd_per_job=50), load(job)) == broken


def test_a_job_that_costs_nothing_needs_no_limit_in_usd() -> None:
    assert rules_broken(make_policy(max_usd_per_job=50), load(make_job())) == []


@pytest.mark.parametrize(
    ("max_hours", "window_h", "broken"),
    [(12.0, 24, []), (12.5, 24, ["max_hours"]), (None, 12, []), (None, 24, ["max_hours"]), (24.0, 6, [])],
)
def test_a_lease_may_last_as_long_as_the_policy_says(max_hours: float | None, window_h: int, broken: list[str]) -> None:
    job = make_job(limits=Limits(max_hours=max_hours), completion_window_s=window_h * 3600)

    assert rules_broken(make_policy(max_hours=12), load(job)) == broken


@pytest.mark.parametrize(
    ("metadata", "broken"),
    [
        ({"team": "search", "cost_center": "7"}, []),
        ({"team": "search"}, ["required_metadata"]),
        ({"team": "search", "cost_center": " "}, ["required_metadata"]),
    ],
)
def test_required_keys_of_metadata_must_have_a_text(metadata: dict[str, str], broken: list[str]) -> None:
    policy = make_policy(required_metadata=("team", "cost_center"))

    assert rules_broken(policy, load(make_job(metadata=metadata))) == broken


TRUSTING = [
    change_engine(args={"trust_remote_code": True}),
    change_engine(args={"trust_remote": True}),
    change_engine(args={"config": "/models/engine.yaml"}),
    change_engine(serve_args=["--trust-remote-code"]),
    change_engine(serve_args=["--trust_remote_code=true"]),
    change_engine(serve_args=["--seed", "7", "--trust-rem"]),
    change_engine(serve_args=["--config", "engine.yaml"]),
]
NOT_TRUSTING = [
    change_engine(),
    change_engine(args={"trust_remote_code": False, "max_model_len": 4096}),
    change_engine(serve_args=["--no-trust-remote-code", "--tokenizer-mode", "auto"]),
]


@pytest.mark.parametrize(
    "template", TRUSTING, ids=lambda each: str(each.spec.engine_args or each.spec.engine.serve_args)
)
def test_code_of_a_model_is_refused_however_it_is_let_in(template: Template) -> None:
    loaded = load(make_job(), template)

    assert trusts_remote_code(template)
    assert rules_broken(make_policy(trust_remote_code=False), loaded) == ["trust_remote_code"]
    assert rules_broken(make_policy(trust_remote_code=True), loaded) == []


@pytest.mark.parametrize(
    "template", NOT_TRUSTING, ids=lambda each: str(each.spec.engine_args or each.spec.engine.serve_args)
)
def test_an_engine_that_runs_no_code_of_a_model_goes_through(template: Template) -> None:
    assert rules_broken(make_policy(trust_remote_code=False), load(make_job(), template)) == []


def test_every_broken_rule_is_told_at_once() -> None:
    job = make_job(candidates=[PODS], limits=Limits(max_usd=99, max_hours=24))
    policy = make_policy(max_usd_per_job=50, max_hours=1, required_metadata=("team",), trust_remote_code=False)

    breaches = list_breaches(policy, load(job, change_engine(args={"trust_remote_code": True})))

    assert [each.rule for each in breaches] == [
        "max_usd_per_job",
        "max_hours",
        "required_metadata",
        "trust_remote_code",
    ]
    assert all(each.fix for each in breaches)


def test_a_cloud_that_is_not_named_is_removed_before_it_is_asked() -> None:
    assert removed_by(make_policy(clouds=("lambda", "local")), PODS) == ["clouds"]
    assert removed_by(make_policy(clouds=("runpod",)), PODS) == []


@pytest.mark.parametrize(
    ("gpu", "allowed", "removed"),
    [
        ("H100", ("H100",), []),
        ("H100", ("H100-PCIe",), []),
        ("H100-SXM", ("H100",), []),
        ("H100-SXM", ("H100-PCIe",), ["gpus"]),
        ("NVIDIA H100 80GB HBM3", ("H100",), []),
        ("A10", ("H100", "A100-80GB"), ["gpus"]),
        ("A10", ("A*",), []),
        ("", ("H100",), []),
    ],
)
def test_a_candidate_of_which_no_gpu_is_allowed_is_removed(
    gpu: str, allowed: tuple[str, ...], removed: list[str]
) -> None:
    assert removed_by(make_policy(gpus=allowed), Candidate(cloud="runpod", gpu=gpu)) == removed


def test_regions_and_prices_that_a_candidate_names_itself_are_judged_offline() -> None:
    policy = make_policy(regions=("US-*",), max_usd_per_hour=1.0)

    assert removed_by(policy, Candidate(cloud="runpod", regions=("EU-RO-1",))) == ["regions"]
    assert removed_by(policy, Candidate(cloud="runpod", regions=("EU-RO-1", "US-KS-2"))) == []
    assert removed_by(policy, Candidate(cloud="local", price_usd_per_hour=1.01)) == ["max_usd_per_hour"]
    assert removed_by(policy, Candidate(cloud="local", price_usd_per_hour=1.0)) == []


IMAGES = [
    ("vllm/vllm-openai:v0.32.0", ("vllm/vllm-openai",), True),
    ("docker.io/vllm/vllm-openai:v0.32.0", ("vllm/vllm-openai",), True),
    ("vllm/vllm-openai:v0.32.0" + DIGEST, ("vllm/vllm-openai",), True),
    ("vllm/vllm-openai:v0.32.0" + DIGEST, ("vllm/vllm-openai:v0.32.0",), True),
    ("vllm/vllm-openai:v0.32.0", ("vllm/vllm-openai:v0.32.*",), True),
    ("vllm/vllm-openai:latest", ("vllm/vllm-openai:v0.32.*",), False),
    ("registry.example.org:5000/a/b:1", ("registry.example.org:5000/*",), True),
    ("registry.example.org:5000/a/b:1", ("registry.example.org:5000/a/b",), True),
    ("evil.example.org/vllm/vllm-openai:v0.32.0", ("vllm/vllm-openai",), False),
    ("vllm/vllm-openai-copy:v0.32.0", ("vllm/vllm-openai",), False),
]


@pytest.mark.parametrize(("image", "patterns", "allowed"), IMAGES)
def test_images_are_allowed_by_pattern(image: str, patterns: tuple[str, ...], allowed: bool) -> None:
    policy = make_policy(images=ImageRules(allowed=patterns))

    assert is_image_allowed(image, patterns) is allowed
    assert removed_by(policy, PODS, image) == ([] if allowed else ["images.allowed"])


@pytest.mark.parametrize(
    ("image", "removed"),
    [
        ("vllm/vllm-openai" + DIGEST, []),
        ("vllm/vllm-openai:v0.32.0", ["images.digest_required"]),
        ("vllm/vllm-openai@sha256:0a", ["images.digest_required"]),
    ],
)
def test_a_digest_may_be_required(image: str, removed: list[str]) -> None:
    assert removed_by(make_policy(images=ImageRules(digest_required=True)), PODS, image) == removed


def test_the_image_that_is_judged_is_the_one_that_a_machine_would_run() -> None:
    vllm = change_engine()
    engine = msgspec.structs.replace(vllm.spec.engine, type="vllm", version="0.32.0")
    template = msgspec.structs.replace(vllm, spec=msgspec.structs.replace(vllm.spec, engine=engine))

    def find(candidate: Candidate) -> str:
        return find_image_of(candidate, template=template, runpod_image="ours/default:1")

    assert find(Candidate(cloud="runpod")) == "ours/default:1"
    assert find(Candidate(cloud="runpod", image="mine:2")) == "mine:2"
    assert find(Candidate(cloud="lambda")) == "vllm/vllm-openai:v0.32.0"
    assert find(Candidate(cloud="lambda", image="mine:2")) == "mine:2"


def test_this_computer_has_neither_image_nor_gpu_nor_region_to_judge() -> None:
    policy = make_policy(gpus=("H100",), regions=("US-*",), images=ImageRules(allowed=("a/b",), digest_required=True))
    job = make_job()

    assert removed_by(policy, job.machines.candidates[0], "x") == []
    assert sift_offers(policy, job, [(job.machines.candidates[0], [make_offer()])])[1] == []


def test_offers_in_other_regions_are_removed_and_so_is_one_whose_region_the_cloud_would_choose() -> None:
    offers = (make_h100("US-KS-2"), make_h100("us-tx-3"), make_h100("EU-RO-1"), make_h100(""))

    assert kept_and_removed(make_policy(regions=("US-*",)), *offers) == (["US-KS-2", "us-tx-3"], ["regions"] * 2)
    assert kept_and_removed(make_policy(), *offers) == (["US-KS-2", "us-tx-3", "EU-RO-1", ""], [])


def test_offers_of_other_gpus_are_removed() -> None:
    a10 = make_h100("B", gpu="A10", gpu_id="NVIDIA A10")

    assert kept_and_removed(make_policy(gpus=("H100",)), make_h100("A", gpu="H100-SXM"), a10) == (["A"], ["gpus"])
    assert kept_and_removed(make_policy(gpus=("NVIDIA A10",)), make_h100("A", gpu="H100-SXM"), a10) == (["B"], ["gpus"])
    assert kept_and_removed(make_policy(gpus=("NVIDIA A1*",)), make_h100("A", gpu="H100-SXM"), a10) == (["B"], ["gpus"])


def test_the_price_of_all_machines_together_counts() -> None:
    policy = make_policy(max_usd_per_hour=6)

    assert kept_and_removed(policy, make_h100("A", 3.0), make_h100("B", 3.01), replicas=2) == (
        ["A"],
        ["max_usd_per_hour"],
    )
    assert kept_and_removed(policy, make_h100("A", 6.0), replicas=1) == (["A"], [])


def test_offers_of_a_cloud_that_is_not_named_are_removed() -> None:
    assert kept_and_removed(make_policy(clouds=("lambda",)), make_h100("A")) == ([], ["clouds"])


def test_what_was_removed_is_told_by_rule_and_candidate() -> None:
    policy = make_policy(regions=("US-*",), clouds=("runpod",))
    job = make_job(candidates=[PODS, Candidate(cloud="lambda", gpu="A10")])
    gone = remove_candidates(policy, job, lambda _: "")
    _, removed = sift_offers(policy, job, [(PODS, [make_h100("EU-RO-1", 2.5), make_h100("US-KS-2")])])

    words = describe_policy(PolicyResult(file="policy.yaml", rules=policy.rules, removed=(*gone.values(), *removed)))

    assert words == [
        "the plan keeps to policy.yaml (clouds, regions)",
        "clouds removes candidate 2 (lambda A10): lambda is not among runpod",
        "regions removes 1 offer of candidate 1: runpod H100 in EU-RO-1 at 2.50",
    ]
