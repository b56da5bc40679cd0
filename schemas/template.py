"""A model deployment template as a frozen record, and how one is found by name; used by jobs, plan and launch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.errors import Problem, SpecError
from schemas.home_path import expand_home
from schemas.problems import count_mistakes, merge_problems
from schemas.spec_check import check_spec
from schemas.spec_schema import load_schema
from schemas.template_check import SpecPart, check_template, list_template_warnings
from schemas.template_shelf import read_shelf
from schemas.yaml_source import load_document

ServedEndpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"]
EngineArg = bool | int | float | str | tuple[str, ...]


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What serves the model. version and image are "" when left out; serve_args come last on the command line."""

    type: Literal["vllm", "llamacpp", "sglang"]
    version: str = ""
    image: str = ""
    invocation: Literal["http_server"] = "http_server"
    serve_args: tuple[str, ...] = ()
    health_endpoint: str = "/health"
    ready_timeout_s: int = 1800
    metrics_endpoint: str = "/metrics"


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the weights come from.

    huggingface: uri is `owner/model`. local: builtin:tiny-chat or builtin:tiny-embed (shipped), the absolute path of a .gguf
    file (llamacpp; relative ones have been resolved against the template's file), or a path on the machine (vllm).
    auth_secret_ref: `env:NAME`, `file:PATH` or `pulumi:KEY`; never the secret itself.
    """

    type: Literal["huggingface", "local"]
    uri: str
    revision: str = ""
    tokenizer_path: str = ""
    chat_template_path: str = ""
    auth_secret_ref: str = ""


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs of one machine; type `cpu` means none. vram_gb is memory of one GPU, 0 = any."""

    type: str
    count: int = 1
    vram_gb: int = 0
    interconnect: Literal["", "nvlink", "pcie"] = ""
    sku_hint: str = ""


class Parallelism(msgspec.Struct, frozen=True, kw_only=True):
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1

    @property
    def world_size(self) -> int:
        return self.tp * self.pp * self.dp * self.ep


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """An empty text means not given. weights_artifact_uri: quantized weights, loaded instead of the model's own."""

    weight: Literal["", "auto", "fp16", "bf16", "fp8", "int8", "awq", "gptq"] = ""
    kv_cache: Literal["", "auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = ""
    weights_artifact_uri: str = ""


class TemplateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """engine_args: names with underscores; numbers and booleans are typed even where the file has them as text."""

    engine: EngineSpec
    model_source: ModelSource
    accelerator: Accelerator
    parallelism: Parallelism = Parallelism()
    engine_args: Mapping[str, EngineArg] = {}
    quantization: Quantization = Quantization()
    supported_endpoints: tuple[ServedEndpoint, ...]
    deployment_mode: Literal["dedicated"] = "dedicated"
    served_model_name: str = ""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """source: absolute path of its file; for an inline `deploy:` the job's own, and the version is "inline"."""

    name: str
    version: str
    status: Literal["active", "deprecated", "draft"] = "active"
    spec: TemplateSpec
    source: str = ""

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def most_tokens(self) -> int:
        """The longest answer that the engine can give to any prompt, 0 = not known.

        vLLM and SGLang refuse a request whose prompt and answer would not fit; llama.cpp cuts the answer short.
        """
        longest = self.spec.engine_args.get("max_model_len", 0)
        if not isinstance(longest, int) or self.spec.engine.type == "llamacpp":
            return 0 if not isinstance(longest, int) else longest
        return max(longest - 1, 0)

    @property
    def model(self) -> str:
        """The model name that requests must ask for, which is the name that the engine serves."""
        source = self.spec.model_source
        if self.spec.served_model_name or source.type == "huggingface":
            return self.spec.served_model_name or source.uri
        return source.uri.removeprefix("builtin:").rsplit("/", 1)[-1].removesuffix(".gguf")


class TemplateReading(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a template gave: template is None exactly when there are problems."""

    template: Template | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def load_template(path: Path) -> Template:
    """Read and check one template file, YAML or JSON; raises SpecError with every problem."""
    return _require(read_template(path), str(path))


def resolve_template(reference: str, templates_dir: Path, *, allow_draft: bool = False) -> Template:
    """The template that `name@version` names, or the highest active version of `name`; raises SpecError."""
    return _require(find_template(reference, [templates_dir], allow_draft=allow_draft), str(templates_dir))


def find_template(reference: str, folders: Sequence[Path], *, allow_draft: bool = False) -> TemplateReading:
    """The same as a reading; the first folder that knows the name decides. Problems about the reference name no file."""
    name, _, version = reference.partition("@")
    shelf = read_shelf(folders, name)
    picked = shelf.pick(name, version, allow_draft=allow_draft)
    if isinstance(picked, Problem):
        return TemplateReading(problems=shelf.broken or (picked,))
    return read_template(picked)


def read_template(path: Path) -> TemplateReading:
    """Read and check one template file."""
    loaded = load_document(path)
    document = loaded.document
    if document is None:
        return TemplateReading(problems=loaded.problems)
    spec = check_spec(document, "template")
    part = SpecPart(document=document, at=("spec",), meant=spec.meant)
    found = merge_problems(loaded.problems, spec.problems, check_template(part))
    if found:
        return TemplateReading(problems=found)
    data = document.data
    template = Template(
        name=data["name"],
        version=data["version"],
        status=data.get("status", "active"),
        spec=make_template_spec(data["spec"], folder=path.resolve().parent),
        source=str(path.resolve()),
    )
    return TemplateReading(template=template, warnings=tuple(list_template_warnings(part)))


def make_template_spec(data: Mapping[str, Any], *, folder: Path) -> TemplateSpec:
    """A checked spec as a record; folder is where relative paths of model files start."""
    engine = dict(data["engine"])
    renamed = {"ready_timeout_s": engine.pop("ready_timeout_seconds", None)}
    engine = {key: value for key, value in {**engine, **renamed}.items() if value not in (None, "")}
    source, accelerator = dict(data["model_source"]), dict(data["accelerator"])
    if engine["type"] == "llamacpp" and not source["uri"].startswith("builtin:"):
        source["uri"] = str((folder / expand_home(source["uri"])).resolve())
    if accelerator["type"].lower() == "cpu":
        accelerator["type"] = "cpu"
    converted = {"engine": engine, "model_source": source, "accelerator": accelerator}
    arguments = make_engine_args(data.get("engine_args", {}))
    return msgspec.convert({**data, **converted, "engine_args": arguments}, TemplateSpec)


def make_engine_args(data: Mapping[str, Any]) -> dict[str, EngineArg]:
    """Checked engine_args with the usual ones typed, lists as tuples and mappings as JSON text."""
    known = load_schema("template")["$defs"]["engine_args"]["properties"]
    return {key: _make_engine_arg(value, known.get(key, {})) for key, value in data.items()}


def _make_engine_arg(value: Any, schema: Mapping[str, Any]) -> EngineArg:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    if isinstance(value, str) and True in schema.get("enum", ()):
        return value == "true"
    if isinstance(value, str) and "integer" in schema.get("type", ()):
        return int(value)
    if isinstance(value, str | int) and "number" in schema.get("type", ()) and not isinstance(value, bool):
        return float(value)
    argument: EngineArg = value
    return argument


def _require(reading: TemplateReading, where: str) -> Template:
    if reading.template is None:
        raise SpecError(count_mistakes("the template", reading.problems), where=where, problems=reading.problems)
    return reading.template
