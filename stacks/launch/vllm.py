"""A template as vLLM's command line. Called by launch.py.

The order is: model, sizes, options, quantization, and last, so that they win, the template's own words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from schemas.template import EngineArg, Template

_TYPED = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_model_len",
    "gpu_memory_utilization",
    "block_size",
    "swap_space",
    "enable_prefix_caching",
    "enable_chunked_prefill",
)
_SPECULATIVE = ("speculative_model", "num_speculative_tokens")
_POOLING = frozenset({"/v1/embeddings", "/v1/rerank"})
# Any of these says what kind of model it is; then we do not.
_KIND_OF_MODEL = frozenset({"runner", "task", "convert"})
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
# Naming the plain formats makes vLLM use its plain, slow kernels; the Marlin ones read the same files, on Ampere and later.
_METHODS = {"fp8": "fp8", "awq": "awq_marlin", "gptq": "gptq_marlin", "int8": "compressed-tensors"}
_PLAIN_METHODS = _METHODS | {"awq": "awq", "gptq": "gptq"}
_BEFORE_AMPERE = ("T4", "V100", "P100", "RTX-2", "QUADRO")


def make_vllm_arguments(template: Template, *, port: int) -> tuple[str, ...]:
    """`vllm serve ...`; the key is no argument, vLLM takes it from the environment."""
    return (
        "vllm",
        "serve",
        find_weights(template),
        *("--served-model-name", template.model),
        *("--host", "127.0.0.1", "--port", str(port)),
        *_make_source(template),
        *_make_sizes(template),
        *_make_options(template),
        *_make_quantization(template),
        *template.spec.engine.serve_args,
    )


def find_weights(template: Template) -> str:
    """What is loaded: the quantized weights where the template names some, else the model itself."""
    return template.spec.quantization.weights_artifact_uri or template.spec.model_source.uri


def make_flag(name: str, value: EngineArg) -> Iterator[str]:
    """One option: true is a bare flag, false the flag that denies it, a list repeats the flag."""
    flag = "--" + name.replace("_", "-")
    if value is True:
        yield flag
    elif value is False:
        yield f"--no-{flag[2:]}"
    else:
        for item in value if isinstance(value, tuple) else (value,):
            yield flag
            yield str(item)


def _make_source(template: Template) -> Iterator[str]:
    source = template.spec.model_source
    # A revision is the model's own: of quantized weights from elsewhere only the tokenizer is still the model's.
    has_other_weights = bool(template.spec.quantization.weights_artifact_uri)
    if source.revision and not has_other_weights:
        yield from ("--revision", source.revision)
    if source.tokenizer_path:
        yield from ("--tokenizer", source.tokenizer_path)
    elif source.revision and has_other_weights:
        yield from ("--tokenizer", source.uri, "--tokenizer-revision", source.revision)
    if source.chat_template_path:
        yield from ("--chat-template", source.chat_template_path)


def _make_sizes(template: Template) -> Iterator[str]:
    sizes = template.spec.parallelism
    # vLLM has no size for experts: it spreads them over the tensor and data parallel ranks.
    tensor = sizes.tp * sizes.ep
    for flag, size in (("tensor", tensor), ("pipeline", sizes.pp), ("data", sizes.dp)):
        if size > 1:
            yield from (f"--{flag}-parallel-size", str(size))
    if sizes.ep > 1:
        yield "--enable-expert-parallel"


def _make_options(template: Template) -> Iterator[str]:
    given = template.spec.engine_args
    if _POOLING.issuperset(template.spec.supported_endpoints) and not _KIND_OF_MODEL.intersection(given):
        yield from ("--runner", "pooling")
    for name in _TYPED:
        if name in given:
            yield from make_flag(name, given[name])
    if "speculative_model" in given:
        draft = {"model": given["speculative_model"], "num_speculative_tokens": given["num_speculative_tokens"]}
        yield from ("--speculative-config", json.dumps(draft))
    for name in sorted(set(given).difference(_TYPED, _SPECULATIVE)):
        yield from make_flag(name, given[name])


def _make_quantization(template: Template) -> Iterator[str]:
    weight, kv_cache = template.spec.quantization.weight, template.spec.quantization.kv_cache
    if weight in _DTYPES:
        yield from ("--dtype", _DTYPES[weight])
    elif weight in _METHODS:
        gpu = template.spec.accelerator.type.upper()
        methods = _PLAIN_METHODS if any(word in gpu for word in _BEFORE_AMPERE) else _METHODS
        yield from ("--quantization", methods[weight])
    if kv_cache not in ("", "auto"):
        yield from ("--kv-cache-dtype", kv_cache)
