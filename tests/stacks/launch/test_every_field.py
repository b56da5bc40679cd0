"""Every field of a template changes what is launched, which offers are taken, what a job may ask for, or is refused.

The fields are those of the schema itself: one that is added there fails here until it is shown to do something.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from providers.cloud import Offer
from providers.gpus import resolve_gpu
from providers.interconnect import find_interconnect
from providers.lambda_cloud.catalog import InstanceType, make_offers
from schemas.errors import SpecError
from schemas.job import Candidate, load_job
from schemas.spec_schema import Schema, list_properties, load_schema
from schemas.template import Template
from stacks.launch.engine_script import render_engine_start
from stacks.launch.launch import make_engine_launch
from stacks.planning.planning import make_need

Path_ = tuple[str, ...]
Edits = Mapping[str, Any]

VLLM: dict[str, Any] = {
    "name": "base",
    "version": "1.0.0",
    "spec": {
        "engine": {"type": "vllm", "image": "vllm/vllm-openai:v0.32.0", "version": "0.32.0"},
        "model_source": {"type": "huggingface", "uri": "Qwen/Qwen2.5-7B-Instruct"},
        "accelerator": {"type": "H100"},
        "supported_endpoints": ["/v1/chat/completions", "/v1/completions"],
    },
}
SGLANG = copy.deepcopy(VLLM)
SGLANG["spec"]["engine"] = {"type": "sglang", "image": "lmsysorg/sglang:v0.5.3", "version": "0.5.3"}
LLAMACPP: dict[str, Any] = {
    "name": "base",
    "version": "1.0.0",
    "spec": {
        "engine": {"type": "llamacpp"},
        "model_source": {"type": "local", "uri": "builtin:tiny-chat"},
        "accelerator": {"type": "cpu"},
        "supported_endpoints": ["/v1/chat/completions", "/v1/completions"],
    },
}
BASES = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMACPP}

# Each field: what it is set to, what stands beside it in both (the field's other value may be among that), only where needed.
TWO_GPUS = {"accelerator.count": 2, "parallelism.pp": 2}
SPECULATION = {"engine_args.speculative_model": "a/draft", "engine_args.num_speculative_tokens": 3}
CHANGES: dict[str, tuple[Edits, Edits]] = {
    "name": ({"name": "other"}, {}),
    "version": ({"version": "2.0.0"}, {}),
    "status": ({"status": "draft"}, {}),
    "engine.type": ({"engine.type": "other"}, {}),
    "engine.version": ({"engine.version": "0.31.0"}, {}),
    "engine.image": ({"engine.image": "me/engine:1"}, {}),
    "engine.invocation": ({"engine.invocation": "grpc"}, {}),
    "engine.serve_args": ({"engine.serve_args": ["--trust-remote-code"]}, {}),
    "engine.health_endpoint": ({"engine.health_endpoint": "/v1/models"}, {}),
    "engine.ready_timeout_seconds": ({"engine.ready_timeout_seconds": 77}, {}),
    "engine.metrics_endpoint": ({"engine.metrics_endpoint": "/prometheus"}, {}),
    "model_source.type": ({"model_source.type": "s3"}, {}),
    "model_source.uri": ({"model_source.uri": "/models/other.gguf"}, {}),
    "model_source.revision": ({"model_source.revision": "abc"}, {}),
    "model_source.tokenizer_path": ({"model_source.tokenizer_path": "a/tokenizer"}, {}),
    "model_source.chat_template_path": ({"model_source.chat_template_path": "/a.jinja"}, {}),
    "model_source.auth_secret_ref": ({"model_source.auth_secret_ref": "env:HF_TOKEN"}, {}),
    "accelerator.type": ({"accelerator.type": "A10"}, {}),
    "accelerator.count": ({"accelerator.count": 2, "parallelism.tp": 2}, {"parallelism.tp": 1}),
    "accelerator.vram_gb": ({"accelerator.vram_gb": 90}, {}),
    "accelerator.interconnect": ({"accelerator.interconnect": "pcie"}, {}),
    "accelerator.sku_hint": ({"accelerator.sku_hint": "gpu_1x_h100_pcie"}, {}),
    "parallelism.tp": ({"parallelism.tp": 2, "parallelism.pp": 1}, TWO_GPUS),
    "parallelism.pp": ({"parallelism.pp": 2, "parallelism.tp": 1}, {"accelerator.count": 2, "parallelism.tp": 2}),
    "parallelism.dp": ({"parallelism.dp": 2, "parallelism.pp": 1}, TWO_GPUS),
    "parallelism.ep": ({"parallelism.ep": 2, "parallelism.pp": 1}, TWO_GPUS),
    "engine_args.max_num_batched_tokens": ({"engine_args.max_num_batched_tokens": 512}, {}),
    "engine_args.max_num_seqs": ({"engine_args.max_num_seqs": 9}, {}),
    "engine_args.max_model_len": ({"engine_args.max_model_len": 999}, {}),
    "engine_args.gpu_memory_utilization": ({"engine_args.gpu_memory_utilization": "0.5"}, {}),
    "engine_args.block_size": ({"engine_args.block_size": 32}, {}),
    "engine_args.swap_space": ({"engine_args.swap_space": 4}, {}),
    "engine_args.enable_prefix_caching": ({"engine_args.enable_prefix_caching": False}, {}),
    "engine_args.enable_chunked_prefill": ({"engine_args.enable_chunked_prefill": False}, {}),
    "engine_args.speculative_model": ({"engine_args.speculative_model": "a/other"}, SPECULATION),
    "engine_args.num_speculative_tokens": ({"engine_args.num_speculative_tokens": 5}, SPECULATION),
    "quantization.weight": ({"quantization.weight": "fp8"}, {}),
    "quantization.kv_cache": ({"quantization.kv_cache": "fp8"}, {}),
    "quantization.weights_artifact_uri": ({"quantization.weights_artifact_uri": "a/quantized"}, {}),
    "supported_endpoints": ({"supported_endpoints": ["/v1/completions"]}, {}),
    "deployment_mode": ({"deployment_mode": "shared"}, {}),
    "served_model_name": ({"served_model_name": "mine"}, {}),
}  # fmt: skip
# Every value of these is tried, not one alone.
EVERY_VALUE = (
    "engine.type",
    "model_source.type",
    "accelerator.interconnect",
    "quantization.weight",
    "quantization.kv_cache",
    "status",
)
# Choices that say what leaving the field out says.
DEFAULTS = {("quantization.weight", "auto"), ("quantization.kv_cache", "auto"), ("status", "active")}

# What a refusal speaks of, where that is not the field's own name.
REASONS = {
    "name": ["no template `base`"],
    "version": ["no version 1.0.0"],
    "status": ["is a draft"],
    "supported_endpoints": ["does not answer /v1/chat/completions"],
    "accelerator.type": ["without a GPU"],
    "accelerator.count": ["on several GPUs"],
    "parallelism.tp": ["on several GPUs"],
    "model_source.type": ["model_source", "type"],
    "model_source.uri": ["not a model of the hub"],
}

TYPES = [
    InstanceType(
        name=name,
        gpu=gpu,
        count=count,
        memory_gb=memory_gb,
        price_usd_per_hour=2.0 * count,
        regions=("us-west-1",),
        interconnect=find_interconnect(gpu, name.split("x_", 1)[1]),
        architecture="x86_64",
    )
    for gpu, name, count, memory_gb in (
        ("A10", "gpu_1x_a10", 1, 24),
        ("H100-SXM", "gpu_1x_h100_sxm5", 1, 80),
        ("H100-PCIE", "gpu_1x_h100_pcie", 1, 80),
        ("H100-NVL", "gpu_1x_h100_nvl", 1, 94),
        ("H100-SXM", "gpu_2x_h100_sxm5", 2, 80),
    )
]


def list_leaves(root: Schema) -> list[str]:
    leaves = [path for path, schema in list_properties(root) if "properties" not in schema]
    return [".".join(path[1:] if path[0] == "spec" else path) for path in leaves]


def edit(base: Mapping[str, Any], edits: Edits) -> dict[str, Any]:
    changed = copy.deepcopy(dict(base))
    for name, value in edits.items():
        *parents, last = name.split(".") if name in ("name", "version", "status") else ("spec", *name.split("."))
        at = changed
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return changed


def observe(data: Mapping[str, Any], folder: Path) -> Any:
    """All that a template decides, for a job that names it: what is refused, the launches, the offers, the requests."""
    (folder / "templates").mkdir(exist_ok=True)
    (folder / "templates" / "base.json").write_text(json.dumps(data))
    (folder / "in.jsonl").write_text("")
    clouds = ["local"] if data["spec"]["engine"]["type"] == "llamacpp" else ["lambda", "runpod"]
    job = {
        "version": 1, "name": "job", "input": "in.jsonl", "template": "base@1.0.0", "endpoint": "/v1/chat/completions",
        "limits": {"max_usd": 1, "max_hours": 1}, "machines": {"candidates": [{"cloud": cloud} for cloud in clouds]},
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    try:
        loaded = load_job(folder / "job.json", templates_dir=folder / "templates")
        template, candidates = loaded.template, loaded.job.machines.candidates
        offers = [take_offers(each) for each in candidates]
        warnings = [warning.code for warning in loaded.warnings]
        return render_launches(template), offers, template.model, template.most_tokens, warnings
    except SpecError as error:
        return "refused", str(error)


def render_launches(template: Template) -> list[str]:
    clouds = ("local",) if template.spec.engine.type == "llamacpp" else ("runpod", "lambda")
    return [
        render_engine_start(make_engine_launch(template, each, port=8000))
        for cloud in clouds
        for each in [Offer(cloud=cloud, gpu="H100", gpu_id="h", count=1, memory_gb=80, price_usd_per_hour=1)]
    ]


def take_offers(candidate: Candidate) -> list[str]:
    """What Lambda's catalog, as the product reads it, offers for a candidate, with the image that goes with it."""
    if candidate.cloud == "local":
        return []
    offers = make_offers(TYPES, make_need(candidate), resolve_gpu(candidate.gpu), ())
    return [f"{offer.gpu_id} {candidate.image}" for offer in offers]


def test_every_field_of_the_schema_is_tried_here_and_no_other() -> None:
    assert sorted(list_leaves(load_schema("template"))) == sorted(CHANGES)


def test_a_field_that_is_new_in_the_schema_would_be_missed() -> None:
    schema = copy.deepcopy(dict(load_schema("template")))
    schema["$defs"]["spec"]["properties"]["engine"]["properties"]["colour"] = {"type": "string"}

    assert set(list_leaves(schema)) - set(CHANGES) == {"engine.colour"}


@pytest.mark.parametrize("engine", BASES)
@pytest.mark.parametrize("field", CHANGES)
def test_the_field_makes_a_difference(field: str, engine: str, tmp_path: Path) -> None:
    edits, beside = CHANGES[field]
    base = edit(BASES[engine], beside)

    before, after = observe(base, tmp_path), observe(edit(base, edits), tmp_path)

    if before[0] == "refused":
        # What must stand beside the field is nothing for this engine; then the field is told with it.
        assert engine == "llamacpp" and "llamacpp" in before[1], before[1]
        assert beside
        return
    assert before != after
    if after[0] == "refused":
        assert any(word in after[1] for word in REASONS.get(field, [field.rsplit(".", 1)[-1]])), after[1]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("field", EVERY_VALUE)
def test_every_choice_makes_a_difference(field: str, engine: str, tmp_path: Path) -> None:
    leaves = {".".join(path).removeprefix("spec."): each for path, each in list_properties(load_schema("template"))}
    base = edit(BASES[engine], CHANGES[field][1])
    before = observe(base, tmp_path)
    part, _, key = field.partition(".")
    own = base["spec"].get(part, {}).get(key)
    values = [value for value in leaves[field]["enum"] if value != own and (field, value) not in DEFAULTS]

    without = [value for value in values if observe(edit(base, {field: value}), tmp_path) == before]

    assert values
    assert without == []


@pytest.mark.parametrize("engine", BASES)
def test_what_decides_nothing_is_seen_to_decide_nothing(engine: str, tmp_path: Path) -> None:
    base = BASES[engine]
    same = {
        "status": "active",
        "engine.health_endpoint": "/health",
        "parallelism.tp": 1,
        "deployment_mode": "dedicated",
    }

    assert observe(edit(base, same), tmp_path) == observe(base, tmp_path)


def test_an_option_that_is_not_known_here_reaches_the_engine(tmp_path: Path) -> None:
    for engine in ("vllm", "sglang"):
        launches = observe(edit(BASES[engine], {"engine_args.mystery_level": 3}), tmp_path)[0]

        assert all("--mystery-level 3" in text for text in launches)
