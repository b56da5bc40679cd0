"""Jobs without a file: from the flags of `run --model` to a job file that can be kept, and the examples that `new` prints.

flags -> checked -> a draft (the deployment from the flags, or from the template of that model) -> jobs/NAME.yaml
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from providers.gpus import resolve_gpu
from runtime.objects.object_settings import is_object_address
from schemas.errors import SpecError
from schemas.files import create_file
from schemas.home_path import expand_home
from schemas.job import PROJECT_TEMPLATES
from schemas.job_skeleton import EXAMPLE, VLLM_VERSION, JobDraft, render_job_skeleton
from schemas.raw_spec import find_list, find_mapping, find_text
from schemas.template import Template, resolve_template
from schemas.yaml_source import load_document
from stacks.run_folder import PROJECT
from stacks.verbs.job_flags import (
    ENDPOINTS,
    JobFlags,
    check_cloud,
    check_flags,
    check_words,
    is_local_model,
    read_amount,
)

FOLDER = "jobs"
_TRIES = 1000


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
    if jobs:
        return Path(jobs[0]), False
    if not flags.model:
        raise SpecError(
            f"{given[0]} needs --model" if given else "there is no job",
            fix="Name a job file, such as jobs/demo.yaml (./inv new prints one), or give "
            "--model, --gpu, --cloud, --input, --max-usd and --max-hours.",
        )
    check_flags(flags)
    return write_job(draft_job(flags, folder / FOLDER), folder / FOLDER), True


def draft_job(flags: JobFlags, folder: Path) -> JobDraft:
    """The job that checked flags mean, for a file in `folder`; what the flags leave open, the first line of the input says."""
    first = _read_first_line(expand_home(flags.input))
    endpoint = flags.endpoint or (first.url if first.url in ENDPOINTS else ENDPOINTS[0])
    asked = first.body.get("model")
    return JobDraft(
        name=flags.name or _make_name(flags.model),
        input=_place(flags.input, folder),
        output=_place(flags.output, folder) if flags.output else "",
        endpoint=endpoint,
        deploy=_make_deployment(flags, endpoint, asked if isinstance(asked, str) else ""),
        candidates=(_make_candidate(flags),),
        replicas=flags.replicas or 1,
        max_usd=read_amount(flags.max_usd),
        max_hours=read_amount(flags.max_hours),
        schema=_place_schema(folder),
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
    """A commented job to start from, for a file where the user is: of a template, of a model, or of neither."""
    if template and flags.model:
        raise SpecError("--template and --model exclude each other", fix="A template names its model; leave one out.")
    check_words(flags)
    given = [name for name in flags.list_given() if name in ("--gpu", "--cloud", "--endpoint")]
    if given and not template and not flags.model:
        raise SpecError(f"{given[0]} needs --template or --model", fix="Add one, or leave it out.")
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
            schema=_place_schema(Path.cwd()),
            is_example=True,
        )
    )


def _place_schema(folder: Path) -> str:
    return os.path.relpath(PROJECT / "schemas" / "job.schema.json", folder)


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
    is_free = accelerator.type == "cpu"
    _check_place(template, flags, is_free=is_free)
    if is_free:
        candidates: tuple[dict[str, Any], ...] = ({"cloud": "local"},)
    else:
        gpu = flags.gpu or accelerator.type
        candidates = tuple(
            {"cloud": cloud, "gpu": gpu} for cloud in ([flags.cloud] if flags.cloud else ["runpod", "lambda"])
        )
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


def _check_place(template: Template, flags: JobFlags, *, is_free: bool) -> None:
    """Raise SpecError for a cloud or a GPU on which a template cannot run."""
    if is_free and (flags.gpu or flags.cloud not in ("", "local")):
        flag = "--gpu" if flags.gpu else "--cloud"
        raise SpecError(f"{template.reference} runs on this computer", where=flag, fix=f"Leave {flag} out.")
    if not is_free and flags.cloud == "local":
        raise SpecError(f"{template.reference} needs a GPU", where="--cloud", fix="Choose another --cloud.")
    if flags.gpu:
        resolve_gpu(flags.gpu)


def _draft_from_model(flags: JobFlags) -> JobDraft:
    is_local = flags.cloud == "local" or is_local_model(flags.model)
    filled = msgspec.structs.replace(
        flags,
        cloud=flags.cloud or ("local" if is_local else "runpod"),
        gpu=flags.gpu or ("" if is_local else "H100"),
        max_usd="" if is_local else "10",
        max_hours="1" if is_local else "4",
    )
    check_cloud(filled)
    endpoint = filled.endpoint or ENDPOINTS[0]
    name = _make_name(filled.model)
    return JobDraft(
        name=name,
        input=f"data/{name}.jsonl",
        endpoint=endpoint,
        deploy=_make_deployment(filled, endpoint, ""),
        candidates=(_make_candidate(filled),),
        max_usd=read_amount(filled.max_usd),
        max_hours=read_amount(filled.max_hours),
    )


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
    if is_local_model(model):
        uri = model if model.startswith("builtin:") else str(expand_home(model).resolve())
        return {"engine": {"type": "llamacpp"}, "model_source": {"type": "local", "uri": uri}}
    engine = {"type": "vllm", "version": VLLM_VERSION, "image": f"vllm/vllm-openai:v{VLLM_VERSION}"}
    return {"engine": engine, "model_source": {"type": "huggingface", "uri": model}}


def _name_model(model: str) -> str:
    """What requests must ask for when no other name is served."""
    return model.removeprefix("builtin:").rsplit("/", 1)[-1].removesuffix(".gguf") if is_local_model(model) else model


def _make_name(text: str) -> str:
    """A job's name out of a model's or a template's."""
    words = re.sub(r"[^a-z0-9]+", "-", _name_model(text).rsplit("/", 1)[-1].lower()).strip("-")
    return (words if words[:1].isalpha() else f"job-{words}")[:40].rstrip("-")


def _place(path: str, folder: Path) -> str:
    """A path as the job's file names it: from its folder when it is near, else as a whole; an address in S3 as it is."""
    if is_object_address(path):
        return path
    whole = expand_home(path).absolute()
    is_near = whole.is_relative_to(folder.absolute().parent)
    return os.path.relpath(whole, folder.absolute()) if is_near else str(whole)


def _read_first_line(path: Path) -> _FirstLine:
    """Nothing where it cannot be read: the check of the input will say why."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.readline(1 << 24).removeprefix(b"\xef\xbb\xbf"), type=_FirstLine)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return _FirstLine()
