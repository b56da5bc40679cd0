"""What becomes of a template's fields, and what is refused because the engine could not honour it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.cloud import Offer
from schemas.errors import SpecError
from schemas.job import load_job
from schemas.template import Accelerator, EngineSpec, ModelSource, Parallelism, Quantization, Template, TemplateSpec
from stacks.launch.engine_script import render_engine_start
from stacks.launch.launch import EngineLaunch, make_engine_launch

JOBS = Path(__file__).parents[3] / "jobs"
VLLM = TemplateSpec(
    engine=EngineSpec(type="vllm", image="vllm/vllm-openai:v0.11.0"),
    model_source=ModelSource(type="huggingface", uri="Qwen/Qwen2.5-7B-Instruct"),
    accelerator=Accelerator(type="H100"),
    supported_endpoints=("/v1/chat/completions",),
)
LLAMACPP = TemplateSpec(
    engine=EngineSpec(type="llamacpp"),
    model_source=ModelSource(type="local", uri="builtin:tiny-chat"),
    accelerator=Accelerator(type="cpu"),
    supported_endpoints=("/v1/chat/completions",),
)


def make(spec: TemplateSpec, *, cloud: str = "runpod", memory_gb: int = 80, **options: Any) -> EngineLaunch:
    gpu = "cpu" if cloud == "local" else "H100"
    offer = Offer(cloud=cloud, gpu=gpu, gpu_id=gpu, count=1, memory_gb=memory_gb, price_usd_per_hour=0)
    return make_engine_launch(Template(name="t", version="1.0.0", spec=spec), offer, port=8001, **options)


def vllm(**fields: Any) -> TemplateSpec:
    return msgspec.structs.replace(VLLM, **fields)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_job_has_a_launch_on_each_of_its_candidates(path: Path) -> None:
    loaded = load_job(path)

    for candidate in loaded.job.machines.candidates:
        launch = make(loaded.template.spec, cloud=candidate.cloud, image=candidate.image)
        assert loaded.template.model in launch.arguments
        assert (launch.where, launch.port) == (
            {"local": "local", "runpod": "pod", "lambda": "vm"}[candidate.cloud],
            8001,
        )


def test_the_engine_serves_the_name_that_requests_ask_for_even_with_weights_from_elsewhere() -> None:
    launch = make(vllm(quantization=Quantization(weight="fp8", weights_artifact_uri="me/quantized")))

    assert launch.arguments[:5] == (
        "vllm",
        "serve",
        "me/quantized",
        "--served-model-name",
        "Qwen/Qwen2.5-7B-Instruct",
    )


def test_serve_args_come_last_so_that_they_win() -> None:
    engine = EngineSpec(type="vllm", serve_args=("--max-model-len", "4096"))

    assert make(vllm(engine=engine, engine_args={"max_model_len": 1024})).arguments[-2:] == ("--max-model-len", "4096")


def test_the_engine_listens_on_the_loopback_address_only_and_gets_no_key_as_an_argument() -> None:
    for cloud in ("runpod", "lambda"):
        text = render_engine_start(make(VLLM, cloud=cloud))

        assert "--host 127.0.0.1" in text
        assert "--api-key" not in text


@pytest.mark.parametrize(
    ("vram_gb", "offer_gb", "least_mib"), [(80, 94, 73728), (0, 48, 44236), (0, 24, 22118), (0, 0, 0)]
)
def test_the_least_memory_is_what_a_gpu_of_that_size_reports(vram_gb: int, offer_gb: int, least_mib: int) -> None:
    launch = make(vllm(accelerator=Accelerator(type="H100", vram_gb=vram_gb)), memory_gb=offer_gb)

    assert launch.gpu and launch.gpu.min_memory_mib == least_mib


def test_a_machine_without_a_gpu_is_not_asked_for_one() -> None:
    assert make(LLAMACPP, cloud="local").gpu is None
    assert make(VLLM, checks_gpu=False).gpu is None


def test_the_image_of_the_candidate_wins_over_the_templates() -> None:
    assert make(VLLM, cloud="lambda", image="me/vllm:1").image == "me/vllm:1"
    assert make(VLLM, cloud="lambda").image == "vllm/vllm-openai:v0.11.0"


def test_a_pod_of_unknown_image_gets_exactly_the_version_that_the_template_names() -> None:
    named = make(vllm(engine=EngineSpec(type="vllm", version="v0.11.0")))
    latest = make(vllm(engine=EngineSpec(type="vllm", version="latest")))

    assert (named.package, named.is_pinned) == ("vllm==0.11.0", True)
    assert (latest.package, latest.is_pinned) == ("vllm", False)
    assert not make(vllm(engine=EngineSpec(type="vllm", version="0.11.0", image="a/b:1"))).is_pinned


def test_experts_are_spread_over_all_gpus_of_the_machine() -> None:
    accelerator = Accelerator(type="H100", count=8)
    launch = make(vllm(parallelism=Parallelism(tp=2, dp=2, ep=2), accelerator=accelerator))

    words = " ".join(launch.arguments)
    assert "--tensor-parallel-size 4 --data-parallel-size 2 --enable-expert-parallel" in words
    assert launch.gpu and launch.gpu.count == 8


@pytest.mark.parametrize(
    ("spec", "cloud", "words"),
    [
        (vllm(engine=EngineSpec(type="vllm", serve_args=("--api-key=x",))), "runpod", "--api-key is set by Leasehold"),
        (vllm(engine=EngineSpec(type="vllm", serve_args=("--host", "0.0.0.0"))), "runpod", "--host is set by"),
        (vllm(engine_args={"port": 80}), "lambda", "engine_args.port"),
        (vllm(engine=EngineSpec(type="sglang"), engine_args={"swap_space": 4}), "runpod", "no swap space"),
        (LLAMACPP, "runpod", "local machines only"),
        (LLAMACPP, "lambda", "local machines only"),
        (msgspec.structs.replace(LLAMACPP, engine_args={"swap_space": 4}), "local", "no such option"),
        (msgspec.structs.replace(LLAMACPP, supported_endpoints=("/v1/rerank",)), "local", "does not serve /v1/rerank"),
        (msgspec.structs.replace(LLAMACPP, model_source=VLLM.model_source), "local", "local models only"),
    ],
)
def test_what_an_engine_cannot_honour_is_refused_with_a_reason(spec: TemplateSpec, cloud: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as refusal:
        make(spec, cloud=cloud)

    assert refusal.value.where == "template t@1.0.0"
