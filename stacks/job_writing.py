"""Jobs without a file: from the flags of `run --model` to a job file that can be kept, and the examples that `new` prints.

flags -> checked -> a draft (the deployment from the flags, or from the template of that model) -> jobs/NAME.yaml
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from providers.gpus import resolve_gpu
from schemas.errors import SpecError
from schemas.files import create_file
from schemas.job import PROJECT_TEMPLATES
from schemas.job_skeleton import EXAMPLE, VLLM_VERSION, JobDraft, render_job_skeleton
from schemas.raw_spec import find_list, find_mapping, find_text
from schemas.template import Template, resolve_template
from schemas.yaml_source import load_document
from stacks.run_folder import PROJECT

FOLDER = "jobs"
_CLOUDS = ("local", "runpod", "lambda")
_ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_HUB_MODEL = re.compile(r"[\w.-]+/[\w.-]+")
_TRIES = 1000


class JobFlags(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed instead of a job file; "" and 0 mean left out. max_usd and max_hours are as typed."""

    model: str = ""
    gpu: str = ""
    cloud: str = ""
    input: str = ""
    output: str = ""
    endpoint: str = ""
    name: str = ""
    count: int = 0
    replicas: int = 0
    max_usd: str = ""
    max_hours: str = ""

    def list_given(self) -> list[str]:
        """The flags that were typed, as they are typed."""
        return [
            f"--{name.replace('_', '-')}"
            for name, value in msgspec.structs.asdict(self).items()
            if value != self.__struct_defaults__[self.__struct_fields__.index(name)]
        ]


class _FirstLine(msgspec.Struct):
    """What the first line of a batch says about all of them."""

    url: str = ""
    body: Mapping[str, Any] = {}


def choose_job(jobs: Sequence[str], flags: JobFlags, folder: Path) -> tuple[Path, bool]:
    """The job file of a command line, and whether it was made here from flags; raises SpecError for what does not go together.

    folder: where the user is; the file is made in its `jobs`, and an equal one that is there already is used again.
    """
    given = flags.list_given()
    if jobs and given:
        raise SpecError(
            f"{given[0]} does not go with a job file", fix=f"Write it into {jobs[0]}, or leave the file out."
        )
    if len(jobs) > 1:
        raise SpecError("several jobs in one command are not supported yet", fix="Run them one after the other.")
    if jobs:
        return Path(jobs[0]), False
    if not flags.model:
        raise SpecError(
            f"{given[0]} needs --model" if given else "there is no job",
            fix="Name a job file, or the job: --model, --gpu, --cloud, --input, --max-usd and --max-hours.",
        )
    check_flags(flags)
    return write_job(draft_job(flags, folder / FOLDER), folder / FOLDER), True


def check_flags(flags: JobFlags) -> None:
    """Raise SpecError for the first flag that is missing, wrong, or does not go with another."""
    _check_cloud(flags)
    _check_numbers(flags)
    if flags.endpoint and flags.endpoint not in _ENDPOINTS:
        raise SpecError(
            f"there is no endpoint {flags.endpoint!r}", where="--endpoint", fix=f"One of: {', '.join(_ENDPOINTS)}"
        )
    if flags.name and not _NAME.fullmatch(flags.name):
        raise SpecError(
            f"{flags.name!r} cannot be a job's name", where="--name", fix="Small letters, digits and '-', at most 40."
        )
    if not flags.input:
        raise SpecError("--model needs --input", fix="Name the batch file: --input x.jsonl")
    if not Path(flags.input).is_file():
        raise SpecError("there is no such input file", where=flags.input, fix="Correct --input.")


def draft_job(flags: JobFlags, folder: Path) -> JobDraft:
    """The job that checked flags mean, for a file in `folder`; what the flags leave open, the first line of the input says."""
    first = _read_first_line(Path(flags.input))
    endpoint = flags.endpoint or (first.url if first.url in _ENDPOINTS else _ENDPOINTS[0])
    asked = first.body.get("model")
    return JobDraft(
        name=flags.name or _make_name(flags.model),
        input=_place(flags.input, folder),
        output=_place(flags.output, folder) if flags.output else "",
        endpoint=endpoint,
        deploy=_make_deployment(flags, endpoint, asked if isinstance(asked, str) else ""),
        candidates=(_make_candidate(flags),),
        replicas=flags.replicas or 1,
        max_usd=_read_amount(flags.max_usd),
        max_hours=_read_amount(flags.max_hours),
        schema=os.path.relpath(PROJECT / "schemas" / "job.schema.json", folder),
    )


def write_job(draft: JobDraft, folder: Path) -> Path:
    """Write a job under a name that is free, and never over another file; one that says the same is taken as it is."""
    text = render_job_skeleton(draft).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, _TRIES):
            path = folder / (f"{draft.name}.yaml" if number == 1 else f"{draft.name}-{number}.yaml")
            if path.is_file() and path.read_bytes() == text:
                return path
            if not path.exists() and create_file(path, text):
                return path
    except OSError as error:
        raise SpecError(
            f"the job cannot be written: {error.strerror}", where=str(folder), fix="Go to a folder that can be written."
        ) from error
    raise SpecError(f"there are {_TRIES} jobs called {draft.name} already", where=str(folder), fix="Give it a --name.")


def render_example(*, template: str, flags: JobFlags) -> str:
    """A commented job to start from: of a template, of a model, or of neither."""
    if template and flags.model:
        raise SpecError("--template and --model exclude each other", fix="A template names its model; leave one out.")
    draft = EXAMPLE
    if template:
        draft = _draft_from_template(resolve_template(template, PROJECT_TEMPLATES), flags)
    elif flags.model:
        draft = _draft_from_model(flags)
    return render_job_skeleton(
        msgspec.structs.replace(
            draft,
            name=flags.name or draft.name,
            input=flags.input or draft.input,
            output=flags.output or draft.output,
            replicas=flags.replicas or draft.replicas,
            is_example=True,
        )
    )


def _draft_from_template(template: Template, flags: JobFlags) -> JobDraft:
    accelerator = template.spec.accelerator
    name = _make_name(template.name)
    endpoints = template.spec.supported_endpoints
    if flags.endpoint and flags.endpoint not in endpoints:
        raise SpecError(
            f"{template.reference} does not serve {flags.endpoint}",
            where="--endpoint",
            fix=f"One of: {', '.join(endpoints)}",
        )
    if accelerator.type == "cpu":
        candidates: tuple[dict[str, Any], ...] = ({"cloud": "local"},)
    else:
        gpu = flags.gpu or accelerator.type
        candidates = tuple(
            {"cloud": cloud, "gpu": gpu} for cloud in ([flags.cloud] if flags.cloud else ["runpod", "lambda"])
        )
    is_free = accelerator.type == "cpu"
    return msgspec.structs.replace(
        EXAMPLE,
        name=name,
        input=f"data/{name}.jsonl",
        endpoint=flags.endpoint or endpoints[0],
        template=template.reference,
        candidates=candidates,
        max_usd=None if is_free else EXAMPLE.max_usd,
        max_hours=1 if is_free else EXAMPLE.max_hours,
    )


def _draft_from_model(flags: JobFlags) -> JobDraft:
    is_local = flags.cloud == "local" or _is_local_model(flags.model)
    filled = msgspec.structs.replace(
        flags,
        cloud=flags.cloud or ("local" if is_local else "runpod"),
        gpu=flags.gpu or ("" if is_local else "H100"),
        max_usd="" if is_local else "10",
        max_hours="1" if is_local else "4",
    )
    _check_cloud(filled)
    endpoint = filled.endpoint or _ENDPOINTS[0]
    name = _make_name(filled.model)
    return JobDraft(
        name=name,
        input=f"data/{name}.jsonl",
        endpoint=endpoint,
        deploy=_make_deployment(filled, endpoint, ""),
        candidates=(_make_candidate(filled),),
        max_usd=_read_amount(filled.max_usd),
        max_hours=_read_amount(filled.max_hours),
    )


def _check_cloud(flags: JobFlags) -> None:
    if flags.cloud not in _CLOUDS:
        what = f"there is no cloud {flags.cloud!r}" if flags.cloud else "--model needs --cloud"
        raise SpecError(what, where="--cloud", fix=f"One of: {', '.join(_CLOUDS)}")
    if flags.cloud == "local":
        if flags.gpu or flags.count:
            flag = "--gpu" if flags.gpu else "--count"
            raise SpecError(f"{flag} does not go with --cloud local", where=flag, fix=f"Leave {flag} out.")
        if not _is_local_model(flags.model):
            raise SpecError(
                "the local cloud runs llama.cpp, which needs a .gguf file",
                where="--model",
                fix="Name one, or builtin:tiny-chat or builtin:tiny-embed; or choose another --cloud.",
            )
        return
    if _HUB_MODEL.fullmatch(flags.model) is None:
        raise SpecError(
            f"{flags.model!r} is no model of the hub",
            where="--model",
            fix="Write owner/model, as in Qwen/Qwen2.5-7B-Instruct.",
        )
    if not flags.gpu:
        raise SpecError(f"--cloud {flags.cloud} needs --gpu", where="--gpu", fix="`./inv offers` shows what there is.")
    resolve_gpu(flags.gpu)
    missing = [name for name, value in (("--max-usd", flags.max_usd), ("--max-hours", flags.max_hours)) if not value]
    if missing:
        raise SpecError(
            f"a run that costs money needs {' and '.join(missing)}",
            where=missing[0],
            fix="Say what it may use at the most.",
        )


def _check_numbers(flags: JobFlags) -> None:
    for flag, count in (("--count", flags.count), ("--replicas", flags.replicas)):
        if count < 0:
            raise SpecError(f"{flag} must be 1 or more, not {count}", where=flag, fix="Correct it, or leave it out.")
    for flag, text in (("--max-usd", flags.max_usd), ("--max-hours", flags.max_hours)):
        if text and _read_amount(text) is None:
            raise SpecError(f"{flag} takes a number above 0, not {text!r}", where=flag, fix="Correct it.")


def _read_amount(text: str) -> float | None:
    """A number above 0; None for what is left out or no such number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _make_candidate(flags: JobFlags) -> dict[str, Any]:
    if flags.cloud == "local":
        return {"cloud": "local"}
    return {"cloud": flags.cloud, "gpu": flags.gpu} | ({"count": flags.count} if flags.count > 1 else {})


def _make_deployment(flags: JobFlags, endpoint: str, asked: str) -> dict[str, Any]:
    """A template's spec for the model: that of a shipped template of the same model on the GPUs of the flags, else a plain one."""
    spec = _find_shipped(flags.model, endpoint) or _make_plain(flags.model)
    is_local = flags.cloud == "local"
    accelerator: dict[str, Any] = {"type": "cpu"} if is_local else {"type": flags.gpu, "count": flags.count or 1}
    made = {"engine": spec["engine"], "model_source": spec["model_source"], "accelerator": accelerator}
    if flags.count > 1:
        made["parallelism"] = {"tp": flags.count}
    made |= {key: spec[key] for key in ("engine_args", "quantization") if spec.get(key)}
    made["supported_endpoints"] = [endpoint]
    if asked and asked != _name_model(flags.model):
        made["served_model_name"] = asked
    return made


def _find_shipped(model: str, endpoint: str) -> dict[str, Any] | None:
    """The spec of the first active shipped template with exactly these weights."""
    for path in sorted(PROJECT_TEMPLATES.glob("*.yaml")):
        if model.encode() not in path.read_bytes():
            continue
        document = load_document(path).document
        data = document.data if document else {}
        spec = find_mapping(data, ("spec",))
        if (
            find_text(data, ("status",)) in ("", "active")
            and find_text(spec, ("model_source", "uri")) == model
            and not find_text(spec, ("quantization", "weights_artifact_uri"))
            and endpoint in find_list(spec, ("supported_endpoints",))
        ):
            return spec
    return None


def _make_plain(model: str) -> dict[str, Any]:
    if _is_local_model(model):
        uri = model if model.startswith("builtin:") else str(Path(model).expanduser().resolve())
        return {"engine": {"type": "llamacpp"}, "model_source": {"type": "local", "uri": uri}}
    engine = {"type": "vllm", "version": VLLM_VERSION, "image": f"vllm/vllm-openai:v{VLLM_VERSION}"}
    return {"engine": engine, "model_source": {"type": "huggingface", "uri": model}}


def _is_local_model(model: str) -> bool:
    return model.startswith("builtin:") or model.endswith(".gguf")


def _name_model(model: str) -> str:
    """What requests must ask for when no other name is served."""
    return model.removeprefix("builtin:").rsplit("/", 1)[-1].removesuffix(".gguf") if _is_local_model(model) else model


def _make_name(text: str) -> str:
    """A job's name out of a model's or a template's."""
    words = re.sub(r"[^a-z0-9]+", "-", _name_model(text).rsplit("/", 1)[-1].lower()).strip("-")
    return (words if words[:1].isalpha() else f"job-{words}")[:40].rstrip("-")


def _place(path: str, folder: Path) -> str:
    """A path as the job's file names it: from its folder when it is near, else as a whole."""
    whole = Path(path).expanduser().absolute()
    is_near = whole.is_relative_to(folder.absolute().parent)
    return os.path.relpath(whole, folder.absolute()) if is_near else str(whole)


def _read_first_line(path: Path) -> _FirstLine:
    """Nothing where it cannot be read: the check of the input will say why."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.readline(1 << 24).removeprefix(b"\xef\xbb\xbf"), type=_FirstLine)
    except (OSError, msgspec.MsgspecError):
        return _FirstLine()
