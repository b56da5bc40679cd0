"""What a JSON Schema cannot say about a template's spec: fields that must agree. Called for templates and for `deploy:`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from schemas.engine_flags import FIELD_IF_SET, FIELD_OF_OPTION, OURS, find_flags
from schemas.errors import Problem
from schemas.raw_spec import find_list, find_mapping, find_number, find_text, find_value
from schemas.spec_schema import load_schema
from schemas.spec_words import join_words, suggest
from schemas.yaml_source import Document, KeyPath

_GENERATING = ("/v1/chat/completions", "/v1/completions")
_POOLING = ("/v1/embeddings", "/v1/rerank")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NOT_FOR_LLAMACPP = (
    ("engine", "version"),
    ("engine", "image"),
    ("model_source", "revision"),
    ("model_source", "tokenizer_path"),
    ("model_source", "auth_secret_ref"),
    ("accelerator", "vram_gb"),
    ("accelerator", "interconnect"),
    ("accelerator", "sku_hint"),
    ("quantization", "weight"),
    ("quantization", "kv_cache"),
    ("quantization", "weights_artifact_uri"),
)
LLAMACPP_OPTIONS = frozenset({"max_model_len", "max_num_seqs", "max_num_batched_tokens", "threads", "max_tokens"})
# The models that are shipped with the package, for the demo and the tests.
BUILTIN_MODELS = ("builtin:tiny-chat", "builtin:tiny-embed")
_BUILT_IN = join_words(BUILTIN_MODELS, last="or")
_BUILTIN_ENDPOINTS = {"builtin:tiny-chat": _GENERATING, "builtin:tiny-embed": ("/v1/embeddings",)}
# Options that say what kind of model it is, and the values with which it writes text; any other makes it a pooling model.
_KIND_OPTIONS = {"runner": ("auto", "generate"), "task": ("auto", "generate"), "convert": ("auto", "none")}


class SpecPart(msgspec.Struct, frozen=True, kw_only=True):
    """A spec within a document, at ("spec",) or ("deploy",); meant: keys that stand there misspelt, told already."""

    document: Document
    at: KeyPath
    meant: frozenset[KeyPath] = frozenset()

    @property
    def data(self) -> dict[str, Any]:
        return find_mapping(self.document.data, self.at)

    def problem(self, path: KeyPath, message: str, *, code: str, fix: str, at_key: bool = False) -> Problem:
        return self.document.make_problem((*self.at, *path), message, code=code, fix=fix, at_key=at_key)


def check_template(part: SpecPart) -> list[Problem]:
    """Every contradiction within the spec; fields of a wrong type are passed over, the schema names those."""
    return [problem for check in _CHECKS for problem in check(part)]


def list_template_warnings(part: SpecPart) -> list[Problem]:
    """What works but deserves a second look."""
    return [problem for check in _WARNINGS for problem in check(part)]


def _check_sizes(part: SpecPart) -> Iterator[Problem]:
    if (*part.at, "parallelism") in part.meant:
        return
    sizes = [find_number(part.data, ("parallelism", key)) or 1 for key in ("tp", "pp", "dp", "ep")]
    count = find_number(part.data, ("accelerator", "count")) or 1
    product = math.prod(sizes)
    if product != count and part.data.get("accelerator"):
        at: KeyPath = ("parallelism",) if "parallelism" in part.data else ("accelerator", "count")
        message = f"tp x pp x dp x ep is {product:g}, but accelerator.count is {count:g}"
        fix = f"Set accelerator.count to {product:g}, or change the sizes; they must be equal."
        yield part.problem(at, message, code="parallelism", fix=fix, at_key=True)


def _check_words(part: SpecPart) -> Iterator[Problem]:
    for index, word in enumerate(find_list(part.data, ("engine", "serve_args"))):
        if isinstance(word, str) and re.match(r"--?[\w-]+\s", word):
            flag, value = word.split(maxsplit=1) if len(word.split()) > 1 else (word.strip(), "")
            message = f"`{flag}` and its value stand in one entry, and the engine would take them for one word"
            fix = f"Make two entries of it: {flag}, {value}." if value else f"Write {flag}."
            yield part.problem(("engine", "serve_args", index), message, code="serve_args", fix=fix)


def _check_flags(part: SpecPart) -> Iterator[Problem]:
    arguments = find_list(part.data, ("engine", "serve_args"))
    given = find_mapping(part.data, ("engine_args",))
    for flag in find_flags(arguments):
        path: KeyPath = ("engine", "serve_args", flag.index)
        if flag.option in given:
            message = f"`{flag.word}` is also set by engine_args.{flag.option}"
            yield part.problem(path, message, code="conflict", fix="Keep one of the two.")
        else:
            yield from _check_owner(part, path, flag.word, flag.option)


def _check_engine_args(part: SpecPart) -> Iterator[Problem]:
    for key in find_mapping(part.data, ("engine_args",)):
        yield from _check_owner(part, ("engine_args", key), f"engine_args.{key}", key)


def _check_owner(part: SpecPart, path: KeyPath, word: str, option: str) -> Iterator[Problem]:
    owner = FIELD_OF_OPTION.get(option) or FIELD_IF_SET.get(option, "")
    is_set = find_value(part.data, tuple(owner.split("."))) is not None
    if option in OURS:
        message = f"`{word}` is set by Leasehold on every machine"
        yield part.problem(path, message, code="reserved", fix="Remove it.")
    elif option in FIELD_OF_OPTION or (is_set and _touches(option, part)):
        message = f"`{word}` has a field of its own, {owner}"
        yield part.problem(path, message, code="conflict", fix=f"Use {owner} only.")


def _touches(option: str, part: SpecPart) -> bool:
    """Whether an option says the same as its field: dtype does so only for the weights fp16 and bf16."""
    weight = find_text(part.data, ("quantization", "weight"))
    return {"dtype": weight in ("fp16", "bf16"), "quantization": weight not in ("", "auto")}.get(option, True)


def _check_speculation(part: SpecPart) -> Iterator[Problem]:
    given = find_mapping(part.data, ("engine_args",))
    pair = ("speculative_model", "num_speculative_tokens")
    for one, other in (pair, pair[::-1]):
        if one in given and other not in given:
            message = f"`{one}` needs `{other}` beside it"
            path = ("engine_args", one)
            yield part.problem(path, message, code="missing_key", fix=f"Add `{other}`, or remove `{one}`.", at_key=True)


def _check_batch(part: SpecPart) -> Iterator[Problem]:
    given = find_mapping(part.data, ("engine_args",))
    path = ("engine_args", "max_num_batched_tokens")
    names = ("max_num_batched_tokens", "max_model_len", "max_num_seqs")
    step, longest, most = (_as_number(given.get(key)) for key in names)
    if step and longest and step < longest and given.get("enable_chunked_prefill") in (False, "false"):
        message = f"without chunked prefill a step of {step:g} tokens cannot take a prompt of {longest:g}"
        fix = "Raise max_num_batched_tokens to max_model_len, or remove enable_chunked_prefill."
        yield part.problem(path, message, code="conflict", fix=fix)
    elif step and most and step < most and find_text(part.data, ("engine", "type")) == "vllm":
        message = f"a step of {step:g} tokens cannot serve {most:g} requests, which vllm refuses to start with"
        yield part.problem(path, message, code="conflict", fix="Raise it to max_num_seqs at least.")


def _check_kind(part: SpecPart) -> Iterator[Problem]:
    """Whether the options make a model that can answer the endpoints."""
    given = find_mapping(part.data, ("engine_args",))
    endpoints = find_list(part.data, ("supported_endpoints",))
    writes = any(endpoint in _GENERATING for endpoint in endpoints)
    for path, option, value in _list_kinds(part):
        if endpoints and isinstance(value, str) and (value in _KIND_OPTIONS[option]) != writes and value != "auto":
            message = f"with {option} {value} the engine does not answer {endpoints[0]}"
            yield part.problem(path, message, code="endpoint", fix="Remove it, or correct supported_endpoints.")
    if "speculative_model" in given and endpoints and not writes:
        message = f"speculative decoding is for text, and {endpoints[0]} writes none"
        path = ("engine_args", "speculative_model")
        yield part.problem(path, message, code="conflict", fix="Remove it and num_speculative_tokens.", at_key=True)


def _list_kinds(part: SpecPart) -> Iterator[tuple[KeyPath, str, Any]]:
    given, words = find_mapping(part.data, ("engine_args",)), find_list(part.data, ("engine", "serve_args"))
    yield from ((("engine_args", key), key, given[key]) for key in _KIND_OPTIONS if key in given)
    for flag in find_flags(words):
        if flag.option in _KIND_OPTIONS:
            after = words[flag.index + 1] if flag.index + 1 < len(words) else ""
            _, equals, value = words[flag.index].partition("=")
            yield ("engine", "serve_args", flag.index), flag.option, value if equals else after


def _as_number(value: Any) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _check_endpoints(part: SpecPart) -> Iterator[Problem]:
    endpoints = find_list(part.data, ("supported_endpoints",))
    pooling = [endpoint for endpoint in endpoints if endpoint in _POOLING]
    if pooling and any(endpoint in _GENERATING for endpoint in endpoints):
        path = ("supported_endpoints", endpoints.index(pooling[0]))
        message = f"an engine either writes text or answers {pooling[0]}, never both"
        yield part.problem(path, message, code="conflict", fix="Make two templates of it.")


def _check_source(part: SpecPart) -> Iterator[Problem]:
    engine = find_text(part.data, ("engine", "type"))
    kind = find_text(part.data, ("model_source", "type"))
    uri = find_text(part.data, ("model_source", "uri"))
    message, fix = _judge_source(engine, kind, uri)
    if message:
        code = "not_supported_yet" if "not supported yet" in message else "model_source"
        yield part.problem(("model_source", "uri"), message, code=code, fix=fix)
    served = _BUILTIN_ENDPOINTS.get(uri, ()) if engine == "llamacpp" else ()
    for index, endpoint in enumerate(find_list(part.data, ("supported_endpoints",)) if served else ()):
        if endpoint in (*_GENERATING, "/v1/embeddings") and endpoint not in served:
            message = f"{uri} does not answer {endpoint}"
            others = join_words((model for model in BUILTIN_MODELS if model != uri), last="or")
            fix = f"It answers {join_words(served, last='and')}; take {others} for the rest."
            yield part.problem(("supported_endpoints", index), message, code="endpoint", fix=fix)
    if kind == "local" and engine != "llamacpp" and find_value(part.data, ("model_source", "revision")) is not None:
        message = "a local model has no revision"
        yield part.problem(("model_source", "revision"), message, code="model_source", fix="Remove it.", at_key=True)


def _judge_source(engine: str, kind: str, uri: str) -> tuple[str, str]:
    if not (engine and kind and uri):
        return "", ""
    if engine == "llamacpp" and kind != "local":
        return "llamacpp from the hub is not supported yet", f"Use type local with a .gguf file or {_BUILT_IN}."
    if engine == "llamacpp" and not uri.startswith("builtin:") and not uri.endswith(".gguf"):
        return "llamacpp needs a .gguf file", f"Name one, or use {_BUILT_IN}."
    if engine == "llamacpp" and uri.startswith("builtin:") and uri not in BUILTIN_MODELS:
        return f"there is no {uri}", f"Built in are {join_words(BUILTIN_MODELS, last='and')}."
    if engine != "llamacpp" and uri.startswith("builtin:"):
        return (
            f"{engine} cannot load {uri}, which is a file for llamacpp",
            "Use engine.type llamacpp, or another model.",
        )
    if engine != "llamacpp" and kind == "local" and not uri.startswith("/"):
        return "this is a path on the machine, so it must be absolute", "Write a path such as /models/qwen."
    if kind == "huggingface" and not _HUB_NAME.fullmatch(uri):
        return "this is not a model of the hub", "Write owner/model, such as Qwen/Qwen2.5-7B-Instruct."
    return "", ""


def _check_llamacpp(part: SpecPart) -> Iterator[Problem]:
    if find_text(part.data, ("engine", "type")) != "llamacpp":
        return
    path: KeyPath
    options = find_mapping(part.data, ("engine_args",)).keys() - LLAMACPP_OPTIONS
    for path in (*_NOT_FOR_LLAMACPP, *(("engine_args", option) for option in sorted(options))):
        if find_value(part.data, path) not in (None, "auto"):
            message = f"`{path[-1]}` has no effect with llamacpp"
            yield part.problem(path, message, code="no_effect", fix="Remove it.", at_key=True)
    gpu = find_text(part.data, ("accelerator", "type"))
    if gpu and gpu.lower() != "cpu":
        message = "llamacpp runs on local machines, without a GPU"
        yield part.problem(("accelerator", "type"), message, code="no_effect", fix="Write `type: cpu`.")
    endpoints = find_list(part.data, ("supported_endpoints",))
    if "/v1/rerank" in endpoints:
        path = ("supported_endpoints", endpoints.index("/v1/rerank"))
        yield part.problem(
            path, "llamacpp for /v1/rerank is not supported yet", code="not_supported_yet", fix="Use vllm."
        )
    if (find_number(part.data, ("accelerator", "count")) or 1) > 1:
        path = ("accelerator", "count")
        yield part.problem(
            path, "llamacpp on several GPUs is not supported yet", code="not_supported_yet", fix="Set 1."
        )


def _check_sglang(part: SpecPart) -> Iterator[Problem]:
    path = ("engine_args", "swap_space")
    if find_text(part.data, ("engine", "type")) == "sglang" and find_value(part.data, path) is not None:
        message = "`swap_space` has no effect with sglang, which has none"
        yield part.problem(path, message, code="no_effect", fix="Remove it.", at_key=True)


def _warn_image(part: SpecPart) -> Iterator[Problem]:
    image = find_text(part.data, ("engine", "image"))
    name = image.rsplit("/", 1)[-1]
    if image and "@" not in name and (":" not in name or name.endswith(":latest")):
        message = f"`{image}` may be another engine tomorrow"
        fix = "Name a version, such as vllm/vllm-openai:v0.32.0, or a digest."
        yield part.problem(("engine", "image"), message, code="image_latest", fix=fix)


def _warn_engine(part: SpecPart) -> Iterator[Problem]:
    if find_text(part.data, ("engine", "type")) == "sglang":
        message = "sglang is experimental: its launch is rendered, but less tried than vLLM's"
        yield part.problem(("engine", "type"), message, code="experimental", fix="Try it with a few lines first.")


def _warn_options(part: SpecPart) -> Iterator[Problem]:
    """An option that is unknown here goes to the engine as it is, so a misspelt one is found only there."""
    known = load_schema("template")["$defs"]["engine_args"]["properties"]
    is_refused = find_text(part.data, ("engine", "type")) == "llamacpp"
    for key in () if is_refused else find_mapping(part.data, ("engine_args",)):
        guess = "" if key in known else suggest(key, known, cutoff=0.85)
        if guess:
            path = ("engine_args", key)
            message = f"`{key}` is passed on as it is"
            yield part.problem(path, message, code="unknown_option", fix=f"Did you mean `{guess}`?", at_key=True)


_CHECKS: tuple[Callable[[SpecPart], Iterator[Problem]], ...] = (
    _check_sizes,
    _check_words,
    _check_flags,
    _check_engine_args,
    _check_speculation,
    _check_batch,
    _check_kind,
    _check_endpoints,
    _check_source,
    _check_llamacpp,
    _check_sglang,
)
_WARNINGS: tuple[Callable[[SpecPart], Iterator[Problem]], ...] = (_warn_image, _warn_engine, _warn_options)
