"""A job as a frozen record, checked, every default applied; loaded once, then trusted by plan, program and tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.duration import parse_duration
from schemas.errors import Problem, SpecError
from schemas.job_check import check_job, list_job_warnings
from schemas.job_fit import apply_overrides, check_fit, list_fit_warnings
from schemas.notify import NotifyTarget, make_targets
from schemas.problems import count_mistakes, merge_problems
from schemas.raw_spec import find_mapping, find_text
from schemas.spec_check import check_spec
from schemas.template import (
    EngineArg,
    ServedEndpoint,
    Template,
    TemplateReading,
    find_template,
    make_engine_args,
    make_template_spec,
)
from schemas.yaml_source import Document, load_document

CloudName = Literal["local", "runpod", "lambda"]
PROJECT_TEMPLATES = Path(__file__).parent.parent / "jobs" / "templates"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of machine to try; gpu, count, min_gb, interconnect, sku_hint, a pod's image come from the template if left out.

    gpu: a name of the vocabulary or a cloud's exact id; "" with min_gb > 0 means any GPU with so much memory;
    "cpu" on the local cloud. count: GPUs on one machine. Empty regions, tier and image leave the choice to the
    cloud's settings. price_usd_per_hour: the local cloud's price for one machine.
    """

    cloud: CloudName
    gpu: str = ""
    min_gb: int = 0
    count: int = 1
    tier: Literal["", "secure", "community"] = ""
    regions: tuple[str, ...] = ()
    max_usd_per_hour: float | None = None
    price_usd_per_hour: float = 0.0
    image: str = ""
    disk_gb: int = 100
    network_volume: str = ""
    file_system: str = ""
    min_cuda: str = ""
    interconnect: Literal["", "nvlink", "pcie"] = ""
    sku_hint: str = ""

    @property
    def costs_money(self) -> bool:
        return self.cloud != "local" or self.price_usd_per_hour > 0


class Machines(msgspec.Struct, frozen=True, kw_only=True):
    """How many machines, and which candidates in which order (`order`: as written, `price`: cheapest first)."""

    replicas: int = 1
    min_replicas: int = 1
    candidates: tuple[Candidate, ...]
    rank: Literal["order", "price"] = "order"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the run may use. max_usd and max_hours are set in every job that costs money; boot_usd None = no limit.

    dead_man: "account_key" puts the account's key on Lambda instances, so that they can end themselves; "" does not.
    """

    max_usd: float | None = None
    max_hours: float | None = None
    boot_minutes: float = 30.0
    boot_usd: float | None = None
    heartbeat_minutes: float = 30.0
    dead_man: Literal["", "account_key"] = ""


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are sent; max_concurrency (per machine) and request_timeout_s are 0 for `auto`."""

    max_concurrency: int = 0
    max_retries: int = 5
    request_timeout_s: float = 0.0
    order: Literal["input", "prefix"] = "input"
    ordered: bool = False
    hedge: bool = True


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """input and source (the job's own file) are absolute paths; output too, or "" for the run's folder. Either may be s3://.

    template: `name@version` of what was resolved (`<job>@inline` for `deploy:`). overrides: the job's own engine_args.
    """

    version: int = 1
    name: str
    input: str
    output: str = ""
    endpoint: ServedEndpoint = "/v1/chat/completions"
    template: str
    overrides: Mapping[str, EngineArg] = {}
    completion_window_s: int = 86400
    machines: Machines
    limits: Limits = Limits()
    dispatch: Dispatch = Dispatch()
    metadata: Mapping[str, str] = {}
    notify: tuple[NotifyTarget, ...] = ()
    source: str

    @property
    def costs_money(self) -> bool:
        return any(candidate.costs_money for candidate in self.machines.candidates)


class LoadedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job, the template it uses with the job's overrides already in its engine_args, and what to tell the user."""

    job: Job
    template: Template
    warnings: tuple[Problem, ...] = ()


class JobReading(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a job gave: loaded is None exactly when there are problems; document and template as far as possible."""

    loaded: LoadedJob | None = None
    document: Document | None = None
    template: Template | None = None
    problems: tuple[Problem, ...] = ()


def load_job(path: Path, *, templates_dir: Path | None = None, allow_draft: bool = False) -> LoadedJob:
    """Read and check a job and its template; raises SpecError with every problem of both.

    Templates come from templates_dir, or else from `templates` beside the job, then from the project's jobs/templates.
    """
    reading = read_job(path, templates_dir=templates_dir, allow_draft=allow_draft)
    if reading.loaded is None:
        problems = reading.problems
        raise SpecError(count_mistakes("the job", problems), where=str(path), problems=problems)
    return reading.loaded


def read_job(path: Path, *, templates_dir: Path | None = None, allow_draft: bool = False) -> JobReading:
    """The same as a reading, for those who want to look further at what is wrong."""
    file = load_document(path)
    document = file.document
    if document is None:
        return JobReading(problems=file.problems)
    spec = check_spec(document, "job")
    checked = check_job(document, spec.meant)
    own = merge_problems(file.problems, spec.problems, checked)
    may_be_draft = allow_draft or document.data.get("allow_draft") is True
    found = _read_template(document, [*spec.problems, *checked], templates_dir, may_be_draft)
    fit = check_fit(document, found.template) if found.template else []
    problems = merge_problems(own, found.problems, fit)
    if problems or found.template is None:
        return JobReading(document=document, template=found.template, problems=problems)
    loaded = _make_loaded(document, found.template, found.warnings)
    return JobReading(loaded=loaded, document=document, template=loaded.template)


def _make_loaded(document: Document, template: Template, warnings: tuple[Problem, ...]) -> LoadedJob:
    own = [*list_job_warnings(document), *list_fit_warnings(document, template)]
    changed = apply_overrides(template, document)
    return LoadedJob(job=_make_job(document, template), template=changed, warnings=merge_problems(warnings, own))


def _read_template(
    document: Document, own: Sequence[Problem], templates_dir: Path | None, allow_draft: bool
) -> TemplateReading:
    """The template that the job names or holds; nothing at all where the job's own mistakes are in the way."""
    if any(problem.path.startswith(("template", "deploy")) for problem in own):
        return TemplateReading()
    if "deploy" in document.data:
        return TemplateReading(template=_make_inline(document))
    reference = find_text(document.data, ("template",))
    if not reference:
        return TemplateReading()
    folders = [templates_dir] if templates_dir else [Path(document.file).parent / "templates", PROJECT_TEMPLATES]
    reading = find_template(reference, folders, allow_draft=allow_draft)
    placed = tuple(_place(problem, document) for problem in reading.problems)
    return msgspec.structs.replace(reading, problems=placed)


def _place(problem: Problem, document: Document) -> Problem:
    """Problems about the reference itself belong to the job's line; those of the template's file have a place."""
    if problem.file:
        return problem
    return document.make_problem(("template",), problem.message, code=problem.code, fix=problem.fix)


def _make_inline(document: Document) -> Template:
    source = Path(document.file).resolve()
    spec = make_template_spec(document.data["deploy"], folder=source.parent)
    name = find_text(document.data, ("name",)) or "job"
    return Template(name=name, version="inline", spec=spec, source=str(source))


def _make_job(document: Document, template: Template) -> Job:
    data, source = document.data, Path(document.file).resolve()
    output = find_text(data, ("output",))
    return Job(
        name=data["name"],
        input=_make_absolute(data["input"], source.parent),
        output=_make_absolute(output, source.parent) if output else "",
        endpoint=data.get("endpoint", "/v1/chat/completions"),
        template=template.reference,
        overrides=make_engine_args(find_mapping(data, ("overrides", "engine_args"))),
        completion_window_s=parse_duration(data.get("completion_window", "24h")) or 0,
        machines=_make_machines(data["machines"], template),
        limits=msgspec.convert(data.get("limits", {}), Limits),
        dispatch=_make_dispatch(data.get("dispatch", {})),
        metadata=data.get("metadata", {}),
        notify=make_targets(data, folder=source.parent),
        source=str(source),
    )


def _make_absolute(text: str, folder: Path) -> str:
    if "://" in text:
        return text
    return str((folder / Path(text).expanduser()).resolve())


def _make_machines(data: Mapping[str, Any], template: Template) -> Machines:
    candidates = tuple(_make_candidate(each, template) for each in data["candidates"])
    return Machines(
        replicas=data.get("replicas", 1),
        min_replicas=data.get("min_replicas", 1),
        candidates=candidates,
        rank=data.get("rank", "order"),
    )


def _make_candidate(data: Mapping[str, Any], template: Template) -> Candidate:
    """Fill in from the template what the candidate leaves out; the template's vram_gb counts for every GPU."""
    accelerator = template.spec.accelerator
    own = {key: value for key, value in data.items() if key != "any"}
    if "min_cuda" in own:
        own["min_cuda"] = str(own["min_cuda"])
    if data["cloud"] == "local":
        return msgspec.convert({"count": accelerator.count, **own, "gpu": "cpu"}, Candidate)
    filled: dict[str, Any] = {"count": data.get("count", accelerator.count)}
    filled["min_gb"] = max(data.get("any", {}).get("min_gb", 0), accelerator.vram_gb)
    if "any" not in data and "gpu" not in data:
        filled |= {"gpu": accelerator.type, "sku_hint": accelerator.sku_hint}
    if "gpu" in filled or filled["count"] > 1:
        filled["interconnect"] = accelerator.interconnect
    if data["cloud"] == "runpod":
        # A pod is its image. Lambda's machines have one of their own, and the engine's is a container on them.
        filled["image"] = data.get("image") or template.spec.engine.image
    return msgspec.convert({**own, **filled}, Candidate)


def _make_dispatch(data: Mapping[str, Any]) -> Dispatch:
    return msgspec.convert({key: 0 if value == "auto" else value for key, value in data.items()}, Dispatch)
