"""Launches as text, compared with stored files; LEASEHOLD_UPDATE_GOLDEN=1 rewrites them. Read the difference before you do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from providers.cloud import Offer
from schemas.template import (
    Accelerator,
    EngineSpec,
    ModelSource,
    Parallelism,
    Quantization,
    ServedEndpoint,
    Template,
    TemplateSpec,
    load_template,
)
from stacks.launch.engine_script import render_engine_log, render_engine_settings, render_engine_start
from stacks.launch.launch import EngineLaunch, make_engine_launch

GOLDEN = Path(__file__).parent / "golden"
TEMPLATES = Path(__file__).parents[3] / "jobs" / "templates"
CHAT: tuple[ServedEndpoint, ...] = ("/v1/chat/completions",)
GPUS = {"H100": 80, "A10": 24, "H200": 141, "L40S": 48, "T4": 16, "cpu": 0}
IMAGE = "vllm/vllm-openai:v0.11.0"


def make_launch(
    cloud: str,
    uri: str,
    *,
    engine: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    gpu: str = "H100",
    count: int = 1,
    endpoints: tuple[ServedEndpoint, ...] = CHAT,
    image: str = "",
    cache_dir: str = "",
    **spec: Any,
) -> EngineLaunch:
    template = Template(
        name="golden",
        version="1.0.0",
        spec=TemplateSpec(
            engine=EngineSpec(**{"type": "vllm", "image": IMAGE, **(engine or {})}),
            model_source=ModelSource(**{"type": "huggingface", "uri": uri, **(source or {})}),
            accelerator=Accelerator(type=gpu, count=count, vram_gb=GPUS[gpu]),
            supported_endpoints=endpoints,
            **spec,
        ),
    )
    offer = Offer(
        cloud=cloud, gpu=gpu, gpu_id=gpu, count=count, memory_gb=GPUS[gpu], price_usd_per_hour=0 if gpu == "cpu" else 2
    )
    return make_engine_launch(template, offer, port=8001, image=image, cache_dir=cache_dir)


def launch_shipped(template: Template) -> EngineLaunch:
    gpu, count = template.spec.accelerator.type, template.spec.accelerator.count
    cloud = "local" if gpu == "cpu" else "runpod"
    memory_gb = template.spec.accelerator.vram_gb
    offer = Offer(cloud=cloud, gpu=gpu, gpu_id=gpu, count=count, memory_gb=memory_gb, price_usd_per_hour=2)
    return make_engine_launch(template, offer, port=8001)


LOCAL = {"type": "local"}
LLAMACPP = {"type": "llamacpp", "image": "", "ready_timeout_s": 60}
LAUNCHES = {
    "vllm-pod": make_launch("runpod", "Qwen/Qwen2.5-7B-Instruct", engine={"serve_args": ("--trust-remote-code",)}),
    "vllm-pod-pip": make_launch("runpod", "Qwen/Qwen2.5-7B-Instruct", engine={"image": "", "version": "0.11.0"}),
    "vllm-pod-volume": make_launch("runpod", "Qwen/Qwen2.5-7B-Instruct", cache_dir="/workspace/huggingface"),
    "vllm-vm": make_launch("lambda", "Qwen/Qwen2.5-7B-Instruct", gpu="A10"),
    "vllm-vm-version": make_launch("lambda", "openai/gpt-oss-20b", engine={"image": "", "version": "v0.11.0"}),
    "vllm-vm-local-model": make_launch(
        "lambda", "/lambda/nfs/models/my model", source=LOCAL, served_model_name="mine", cache_dir="/lambda/nfs/cache"
    ),
    "vllm-tp8": make_launch(
        "lambda",
        "meta-llama/Llama-3.1-405B-Instruct-FP8",
        count=8,
        parallelism=Parallelism(tp=8),
        engine_args={"max_num_batched_tokens": 16384, "max_num_seqs": 512, "gpu_memory_utilization": 0.95},
    ),
    "vllm-experts": make_launch(
        "runpod", "Qwen/Qwen3-235B-A22B", gpu="H200", count=8, parallelism=Parallelism(tp=2, dp=2, ep=2)
    ),
    "vllm-awq-fp8-kv": make_launch(
        "runpod",
        "Qwen/Qwen2.5-72B-Instruct",
        gpu="L40S",
        count=2,
        source={"revision": "main"},
        parallelism=Parallelism(tp=2),
        quantization=Quantization(
            weight="awq", kv_cache="fp8_e4m3", weights_artifact_uri="Qwen/Qwen2.5-72B-Instruct-AWQ"
        ),
    ),
    "vllm-awq-old-gpu": make_launch(
        "runpod", "TheBloke/Mistral-7B-AWQ", gpu="T4", quantization=Quantization(weight="awq")
    ),
    "vllm-bf16": make_launch("runpod", "google/gemma-3-4b-it", quantization=Quantization(weight="bf16")),
    "vllm-gated": make_launch(
        "lambda", "meta-llama/Llama-3.1-8B-Instruct", source={"auth_secret_ref": "env:HF_TOKEN"}, gpu="A10"
    ),
    "vllm-revision-chat-template": make_launch(
        "runpod",
        "mistralai/Mistral-7B-Instruct-v0.3",
        source={
            "revision": "e0bc86c23ce5aae1db576c8cca6f06f1f73af2db",
            "tokenizer_path": "mistralai/Mistral-7B-Instruct-v0.3",
            "chat_template_path": "/vllm-workspace/examples/tool_chat_template_mistral.jinja",
        },
        served_model_name="mistral-7b",
    ),
    "vllm-embeddings": make_launch("runpod", "BAAI/bge-m3", gpu="A10", endpoints=("/v1/embeddings",)),
    "vllm-rerank": make_launch(
        "lambda",
        "Qwen/Qwen3-Reranker-4B",
        gpu="A10",
        endpoints=("/v1/rerank",),
        engine_args={"hf_overrides": '{"architectures": ["Qwen3ForSequenceClassification"]}', "convert": "classify"},
    ),
    "vllm-long-context": make_launch(
        "runpod",
        "Qwen/Qwen2.5-14B-Instruct-1M",
        gpu="H200",
        engine={"ready_timeout_s": 3600, "health_endpoint": "/v1/models"},
        engine_args={
            "max_model_len": 1010000,
            "max_num_batched_tokens": 131072,
            "enable_chunked_prefill": True,
            "enable_prefix_caching": False,
            "block_size": 32,
            "swap_space": 16,
            "enforce_eager": True,
        },
    ),
    "vllm-speculative": make_launch(
        "runpod",
        "Qwen/Qwen2.5-32B-Instruct",
        engine_args={
            "speculative_model": "Qwen/Qwen2.5-0.5B-Instruct",
            "num_speculative_tokens": 5,
            "middleware": ("a.b", "c.d"),
            "async_scheduling": False,
        },
    ),
    "vllm-local": make_launch("local", "/models/tiny", source=LOCAL, engine={"image": ""}, gpu="cpu"),
    "llamacpp-chat": make_launch(
        "local",
        "builtin:tiny-chat",
        source=LOCAL,
        engine=LLAMACPP,
        gpu="cpu",
        engine_args={"max_model_len": 2048, "max_num_seqs": 8},
    ),
    "llamacpp-embeddings": make_launch(
        "local", "builtin:tiny-embed", source=LOCAL, engine=LLAMACPP, gpu="cpu", endpoints=("/v1/embeddings",)
    ),
    "llamacpp-file": make_launch(
        "local",
        "/home/me/it's a model.gguf",
        source=LOCAL | {"chat_template_path": "/home/me/chat.jinja"},
        engine=LLAMACPP | {"serve_args": ("--threads", "2")},
        gpu="cpu",
    ),
    "sglang-pod": make_launch(
        "runpod",
        "Qwen/Qwen2.5-7B-Instruct",
        engine={"type": "sglang", "image": "", "version": "0.5.3"},
        engine_args={"max_model_len": 8192, "max_num_seqs": 256, "enable_prefix_caching": False, "log_requests": False},
        quantization=Quantization(weight="fp8", kv_cache="fp8"),
    ),
    "sglang-vm": make_launch(
        "lambda",
        "Qwen/Qwen3-235B-A22B",
        engine={"type": "sglang", "image": "lmsysorg/sglang:v0.5.3"},
        count=8,
        parallelism=Parallelism(tp=4, ep=2),
        engine_args={"speculative_model": "a/draft", "num_speculative_tokens": 4},
    ),
}
# Every template that is shipped, on a pod or, for the tiny models, on this computer.
SHIPPED = {f"shipped-{path.stem}": launch_shipped(load_template(path)) for path in sorted(TEMPLATES.glob("*.yaml"))}
# The whole scripts once; the part that differs for each launch.
WHOLE = {
    "start": render_engine_start(LAUNCHES["vllm-pod"]),
    "log": render_engine_log(LAUNCHES["vllm-vm"]),
}
TEXTS = {name: render_engine_settings(launch) for name, launch in (LAUNCHES | SHIPPED).items()} | {
    f"whole-{name}": text for name, text in WHOLE.items()
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_rendered_script_is_what_the_stored_file_says(name: str) -> None:
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("LEASEHOLD_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(TEXTS[name])

    assert TEXTS[name] == path.read_text(), "see the file's head for how to rewrite"


def test_no_stored_file_is_left_without_a_launch() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(TEXTS)


def test_the_shipped_templates_are_of_every_kind() -> None:
    settings = {name: TEXTS[name] for name in SHIPPED}
    kinds = {
        "tensor parallel over 8": "--tensor-parallel-size 8",
        "quantized": "--quantization fp8",
        "quantized in 4 bits": "--quantization awq_marlin",
        "gated": "needs_hf_token=yes",
        "a revision": "--revision ",
        "a chat template": "--chat-template ",
        "embeddings or rerank": "--runner pooling",
        "long context": "--max-model-len 262144",
        "speculative": "--speculative-config",
        "local": "llamacpp-server",
    }

    assert [kind for kind, words in kinds.items() if not any(words in text for text in settings.values())] == []
    assert len(settings) >= 12


@pytest.mark.wire
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
@pytest.mark.parametrize("name", LAUNCHES)
def test_every_shell_reads_the_scripts_and_what_they_run(name: str, shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell) or pytest.skip(f"{shell} is not installed here")
    command = [program, "sh", "-n"] if shell == "busybox" else [program, "-n"]
    printed = subprocess.run(
        [
            program,
            *(["sh"] if shell == "busybox" else []),
            "-c",
            render_engine_settings(LAUNCHES[name]) + "print_engine_script",
        ],
        capture_output=True,
        check=True,
    ).stdout

    for text in (render_engine_start(LAUNCHES[name]).encode(), printed):
        (tmp_path / "script").write_bytes(text)
        result = subprocess.run([*command, str(tmp_path / "script")], capture_output=True, check=False)
        assert (result.returncode, result.stderr) == (0, b"")
