"""A template as SGLang's command line (experimental). Called by launch.py."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.template import EngineArg, Template
from stacks.launch.refusal import Refusal
from stacks.launch.vllm import find_weights, make_flag

SGLANG_KEY_VARIABLE = "SGLANG_API_KEY"
# SGLang takes its key as an argument only: add it inside the process, where no list of processes shows it.
_PROGRAM = (
    'import os, runpy, sys; sys.argv += ["--api-key", os.environ.pop("SGLANG_API_KEY")]; '
    'runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)'
)
_NAMES = {
    "max_num_batched_tokens": "max-prefill-tokens",
    "max_num_seqs": "max-running-requests",
    "max_model_len": "context-length",
    "gpu_memory_utilization": "mem-fraction-static",
    "block_size": "page-size",
    "speculative_model": "speculative-draft-model-path",
    "num_speculative_tokens": "speculative-num-draft-tokens",
}
# Both are on unless they are switched off.
_OFF = {"enable_prefix_caching": ("--disable-radix-cache",), "enable_chunked_prefill": ("--chunked-prefill-size", "-1")}
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
_METHODS = {"fp8": "fp8", "awq": "awq_marlin", "gptq": "gptq_marlin", "int8": "w8a8_int8"}
_KV_CACHES = {"fp8": "fp8_e4m3", "fp8_e4m3": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"}


def make_sglang_arguments(template: Template, *, port: int) -> tuple[str, ...]:
    """`python3 -c ... --model-path ...`, which runs sglang.launch_server with the key from the environment."""
    spec = template.spec
    return (
        *("python3", "-c", _PROGRAM),
        *("--model-path", find_weights(template)),
        *("--served-model-name", template.model),
        *("--host", "127.0.0.1", "--port", str(port)),
        "--enable-metrics",
        *_make_source(template),
        *_make_sizes(template),
        *_make_options(template),
        *_make_quantization(template),
        *spec.engine.serve_args,
    )


def list_sglang_refusals(template: Template) -> list[Refusal]:
    """What the template asks for and SGLang does not have."""
    if "swap_space" in template.spec.engine_args:
        return [Refusal(path="engine_args.swap_space", message="sglang has no swap space")]
    return []


def _make_source(template: Template) -> Iterator[str]:
    source = template.spec.model_source
    for flag, value in (
        ("--revision", source.revision),
        ("--tokenizer-path", source.tokenizer_path),
        ("--chat-template", source.chat_template_path),
    ):
        if value:
            yield from (flag, value)


def _make_sizes(template: Template) -> Iterator[str]:
    sizes = template.spec.parallelism
    # As with vLLM, experts are spread over the tensor parallel ranks; the size must then divide them.
    for flag, size in (("tp", sizes.tp * sizes.ep), ("pp", sizes.pp), ("dp", sizes.dp), ("ep", sizes.ep)):
        if size > 1:
            yield from (f"--{flag}-size", str(size))


def _make_options(template: Template) -> Iterator[str]:
    given = template.spec.engine_args
    if "/v1/embeddings" in template.spec.supported_endpoints or "/v1/rerank" in template.spec.supported_endpoints:
        yield "--is-embedding"
    if "speculative_model" in given:
        yield from ("--speculative-algorithm", "STANDALONE")
    for name in sorted(given):
        yield from _make_option(name, given[name])


def _make_option(name: str, value: EngineArg) -> Iterator[str]:
    if name in _OFF:
        yield from () if value else _OFF[name]
    elif name not in _NAMES and value is False:
        return  # SGLang's switches are off unless they are given
    else:
        yield from make_flag(_NAMES.get(name, name), value)


def _make_quantization(template: Template) -> Iterator[str]:
    weight, kv_cache = template.spec.quantization.weight, template.spec.quantization.kv_cache
    if weight in _DTYPES:
        yield from ("--dtype", _DTYPES[weight])
    elif weight in _METHODS:
        yield from ("--quantization", _METHODS[weight])
    if kv_cache in _KV_CACHES:
        yield from ("--kv-cache-dtype", _KV_CACHES[kv_cache])
