"""Whether a job and its template fit each other: endpoint, GPUs, overrides. Called by the job's loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from schemas.engine_flags import FIELD_OF_OPTION, OURS, find_flags
from schemas.errors import Problem
from schemas.raw_spec import find_list, find_mapping, find_number, find_text, find_value
from schemas.template import Template, make_engine_args
from schemas.template_check import SpecPart, check_template
from schemas.yaml_source import Document, KeyPath

_CANDIDATES: KeyPath = ("machines", "candidates")
_OVERRIDES: KeyPath = ("overrides", "engine_args")
_PAID = ("runpod", "lambda")
_Check = Callable[[Document, Template], Iterator[Problem]]


def check_fit(document: Document, template: Template) -> list[Problem]:
    """Every contradiction between a job, as it stands in its file, and its template."""
    problems = [problem for check in _CHECKS for problem in check(document, template)]
    told = {problem.path for problem in problems}
    return problems + [each for each in _check_changed(document, template) if each.path not in told]


def list_fit_warnings(document: Document, template: Template) -> list[Problem]:
    """What works but deserves a second look."""
    return [problem for check in _WARNINGS for problem in check(document, template)]


def apply_overrides(template: Template, document: Document) -> Template:
    """The template with the job's own engine_args; expects a checked document."""
    changed = make_engine_args(find_mapping(document.data, ("overrides", "engine_args")))
    merged = {**template.spec.engine_args, **changed}
    return msgspec.structs.replace(template, spec=msgspec.structs.replace(template.spec, engine_args=merged))


def _check_endpoint(document: Document, template: Template) -> Iterator[Problem]:
    endpoint = find_text(document.data, ("endpoint",)) or "/v1/chat/completions"
    supported = template.spec.supported_endpoints
    if endpoint not in supported:
        path: KeyPath = ("endpoint",) if "endpoint" in document.data else _template_path(document)
        message = f"template `{template.name}` does not answer {endpoint}"
        fix = f"Write `endpoint: {supported[0]}`" + (f" (or {', '.join(supported[1:])})" if len(supported) > 1 else "")
        yield document.make_problem(path, message, code="endpoint", fix=f"{fix}, or choose another template.")


def _template_path(document: Document) -> KeyPath:
    return ("template",) if "template" in document.data else ("deploy", "supported_endpoints")


def _check_gpus(document: Document, template: Template) -> Iterator[Problem]:
    for index, candidate in enumerate(find_list(document.data, _CANDIDATES)):
        path = (*_CANDIDATES, index)
        yield from _check_gpu(document, template, find_mapping(candidate, ()), path)


def _check_gpu(
    document: Document, template: Template, candidate: dict[str, object], path: KeyPath
) -> Iterator[Problem]:
    cloud, needed = find_text(candidate, ("cloud",)), template.spec.parallelism.world_size
    count = find_number(candidate, ("count",))
    if cloud in _PAID and template.spec.engine.type == "llamacpp":
        message = f"llamacpp on {cloud} is not supported yet"
        fix = "Use `cloud: local`, or a template with vllm."
        yield document.make_problem((*path, "cloud"), message, code="not_supported_yet", fix=fix)
    elif cloud in _PAID and template.spec.accelerator.type == "cpu" and not {"gpu", "any"} & candidate.keys():
        message = f"neither this candidate nor template `{template.name}` names a GPU"
        yield document.make_problem(path, message, code="missing_key", fix="Add, for example, `gpu: A10`.")
    if count is not None and count < needed:
        message = f"template `{template.name}` spreads the model over {needed} GPUs, this candidate has {count:g}"
        fix = f"Write `count: {needed}`, or leave count out."
        yield document.make_problem((*path, "count"), message, code="parallelism", fix=fix)


def _check_overrides(document: Document, template: Template) -> Iterator[Problem]:
    changed = find_mapping(document.data, ("overrides", "engine_args"))
    arguments = {flag.option: flag.word for flag in find_flags(template.spec.engine.serve_args)}
    for key in changed:
        path: KeyPath = ("overrides", "engine_args", key)
        if key in OURS or key in FIELD_OF_OPTION:
            owner = "by Leasehold on every machine" if key in OURS else f"by the template's {FIELD_OF_OPTION[key]}"
            yield document.make_problem(path, f"`{key}` is set {owner}", code="reserved", fix="Remove it.", at_key=True)
        elif key in arguments:
            message = f"the template's serve_args have `{arguments[key]}`, which would win over `{key}`"
            fix = "Remove one of the two."
            yield document.make_problem(path, message, code="conflict", fix=fix, at_key=True)
    merged = {**template.spec.engine_args, **changed}
    if "speculative_model" in merged and "num_speculative_tokens" not in merged:
        path = ("overrides", "engine_args", "speculative_model")
        message = "`speculative_model` needs `num_speculative_tokens` beside it"
        yield document.make_problem(path, message, code="missing_key", fix="Add it.", at_key=True)


class _Changed(SpecPart, frozen=True, kw_only=True):
    """A template's spec with a job's overrides in it; its problems belong to the overrides, which cause them."""

    spec: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        return self.spec

    def problem(self, path: KeyPath, message: str, *, code: str, fix: str, at_key: bool = False) -> Problem:
        mine = find_mapping(self.document.data, self.at)
        own = (*self.at, path[1]) if len(path) > 1 and path[0] == "engine_args" and path[1] in mine else self.at
        return self.document.make_problem(own, message, code=code, fix=fix, at_key=at_key or own == self.at)


def _check_changed(document: Document, template: Template) -> Iterator[Problem]:
    """What is wrong only with the overrides in place: the template alone was in order."""
    changed = find_mapping(document.data, _OVERRIDES)
    if not changed:
        return
    spec = _drop_empty(msgspec.json.decode(msgspec.json.encode(template.spec)))
    if not template.spec.accelerator.vram_gb:
        del spec["accelerator"]["vram_gb"]
    spec["engine_args"] = {**spec.get("engine_args", {}), **changed}
    # The job's own check of the overrides tells what stands in serve_args as well.
    clashes = {flag.option for flag in find_flags(template.spec.engine.serve_args)} & changed.keys()
    if not clashes:
        yield from check_template(_Changed(document=document, at=_OVERRIDES, spec=spec))


def _drop_empty(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _drop_empty(item) for key, item in value.items() if item != ""}


def _warn_status(document: Document, template: Template) -> Iterator[Problem]:
    if template.status != "active":
        message = f"template `{template.reference}` is {'a draft' if template.status == 'draft' else template.status}"
        fix = "See whether there is a newer version." if template.status == "deprecated" else "Try it with a few lines."
        yield document.make_problem(("template",), message, code=f"{template.status}_template", fix=fix)


def _warn_gpus(document: Document, template: Template) -> Iterator[Problem]:
    needed, least = template.spec.parallelism.world_size, template.spec.accelerator.vram_gb
    for index, candidate in enumerate(find_list(document.data, _CANDIDATES)):
        count, memory = find_number(candidate, ("count",)), find_number(candidate, ("any", "min_gb"))
        path = (*_CANDIDATES, index)
        if count is not None and count > needed:
            message = f"{count - needed:g} of {count:g} GPUs would be paid for and not used"
            fix = f"Leave count out, or use a template for {count:g} GPUs."
            yield document.make_problem((*path, "count"), message, code="idle_gpus", fix=fix)
        if memory is not None and memory < least:
            message = f"template `{template.name}` asks for GPUs of at least {least} GB, so {memory:g} has no effect"
            yield document.make_problem(
                (*path, "any", "min_gb"),
                message,
                code="no_effect",
                fix=f"Write {least}, or lower the template's vram_gb.",
            )


def _warn_wait(document: Document, template: Template) -> Iterator[Problem]:
    boot = find_number(document.data, ("limits", "boot_minutes"))
    wait_s = template.spec.engine.ready_timeout_s
    if boot is not None and boot * 60 < wait_s and find_value(document.data, ("deploy",)) is None:
        message = (
            f"the template gives its engine {wait_s / 60:g} minutes to get ready, this limit only {boot:g} for all"
        )
        yield document.make_problem(("limits", "boot_minutes"), message, code="boot_time", fix="The limit wins.")


_CHECKS: tuple[_Check, ...] = (_check_endpoint, _check_gpus, _check_overrides)
_WARNINGS: tuple[_Check, ...] = (_warn_status, _warn_gpus, _warn_wait)
