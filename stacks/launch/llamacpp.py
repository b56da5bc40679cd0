"""A template as the command line of the llama.cpp server of local machines. Called by launch.py."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.template import Template
from schemas.template_check import BUILTIN_MODELS
from stacks.launch.refusal import Refusal

_NAMES = {
    "max_model_len": "--ctx",
    "max_num_seqs": "--parallel",
    "max_num_batched_tokens": "--batch",
    "threads": "--threads",
    "max_tokens": "--max-tokens",
}


def make_llamacpp_arguments(template: Template, *, port: int) -> tuple[str, ...]:
    """`llamacpp-server ...`; the file with the key is added by the script, which knows where it is."""
    spec = template.spec
    return (
        "llamacpp-server",
        *("--model", spec.model_source.uri),
        *("--alias", template.model),
        *("--host", "127.0.0.1", "--port", str(port)),
        *_make_options(template),
        *spec.engine.serve_args,
    )


def list_llamacpp_refusals(template: Template) -> list[Refusal]:
    """What the template asks for and this server does not have."""
    spec = template.spec
    message = "llamacpp has no such option"
    refusals = [Refusal(path=f"engine_args.{name}", message=message) for name in spec.engine_args if name not in _NAMES]
    if spec.model_source.type != "local":
        message = f"llamacpp takes local models only, a .gguf file, {' or '.join(BUILTIN_MODELS)}"
        refusals.append(Refusal(path="model_source.type", message=message))
    if spec.parallelism.world_size > 1:
        refusals.append(Refusal(path="parallelism", message="llamacpp runs on one device"))
    if "/v1/rerank" in spec.supported_endpoints:
        refusals.append(Refusal(path="supported_endpoints", message="llamacpp does not serve /v1/rerank here"))
    return refusals


def _make_options(template: Template) -> Iterator[str]:
    for name, flag in _NAMES.items():
        if name in template.spec.engine_args:
            yield from (flag, str(template.spec.engine_args[name]))
    if "/v1/embeddings" in template.spec.supported_endpoints:
        yield "--embeddings"
    if template.spec.model_source.chat_template_path:
        yield from ("--chat-template-file", template.spec.model_source.chat_template_path)
