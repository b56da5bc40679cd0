"""What a JSON Schema cannot say about a job: fields that must agree, with each other and with the files around them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from schemas.duration import parse_duration
from schemas.errors import Problem
from schemas.notify import check_targets
from schemas.raw_spec import find_list, find_mapping, find_number, find_text, find_value
from schemas.spec_words import join_words
from schemas.template_check import SpecPart, check_template, list_template_warnings
from schemas.yaml_source import Document, KeyPath

MAX_WINDOW_S = 30 * 86400
_PAID = ("runpod", "lambda")
# Keys of a candidate that only some clouds honour.
_CLOUDS_OF_KEY = {
    "tier": ("runpod",),
    "regions": _PAID,
    "image": _PAID,
    "disk_gb": ("runpod",),
    "network_volume": ("runpod",),
    "min_cuda": ("runpod",),
    "file_system": ("lambda",),
    "price_usd_per_hour": ("local",),
}
_CANDIDATES: KeyPath = ("machines", "candidates")


def check_job(document: Document, meant: frozenset[KeyPath]) -> list[Problem]:
    """Every contradiction within the job; meant: keys that stand there misspelt and are told already."""
    problems = [problem for check in _CHECKS for problem in check(document)]
    problems += [*_check_limits(document, meant), *_check_replicas(document, meant)]
    return problems + check_template(SpecPart(document=document, at=("deploy",), meant=meant))


def list_job_warnings(document: Document) -> list[Problem]:
    """What works but deserves a second look."""
    warnings = [problem for check in _WARNINGS for problem in check(document)]
    return warnings + list_template_warnings(SpecPart(document=document, at=("deploy",)))


def costs_money(candidate: Any) -> bool:
    """Whether a candidate, as it stands in the file, may be billed."""
    return find_text(candidate, ("cloud",)) in _PAID or (find_number(candidate, ("price_usd_per_hour",)) or 0) > 0


def _check_limits(document: Document, meant: frozenset[KeyPath]) -> Iterator[Problem]:
    paid = [candidate for candidate in find_list(document.data, _CANDIDATES) if costs_money(candidate)]
    if not paid or ("limits",) in meant:
        return
    for key, example in (("max_usd", 25), ("max_hours", 6)):
        path = ("limits", key)
        if find_value(document.data, path) is None and key not in find_mapping(document.data, ("limits",)):
            if path in meant:
                continue
            place = "Add it" if "limits" in document.data else "Add `limits:` with it"
            message = f"`limits.{key}` is missing, and {_name_cloud(paid[0])} costs money"
            fix = f"{place}, for example `{key}: {example}`."
            at: KeyPath = ("limits",) if "limits" in document.data else _CANDIDATES
            yield document.make_problem(at, message, code="missing_key", fix=fix, at_key=True)


def _name_cloud(candidate: Any) -> str:
    cloud = find_text(candidate, ("cloud",))
    return "the price you set" if cloud == "local" else cloud


def _check_replicas(document: Document, meant: frozenset[KeyPath]) -> Iterator[Problem]:
    replicas = find_number(document.data, ("machines", "replicas"))
    least = find_number(document.data, ("machines", "min_replicas"))
    if least is not None and least > (replicas or 1) and ("machines", "replicas") not in meant:
        message = f"`min_replicas` is {least:g}, but there are only {replicas or 1:g} replicas"
        fix = "Raise replicas, or lower min_replicas."
        yield document.make_problem(("machines", "min_replicas"), message, code="out_of_range", fix=fix)


def _check_window(document: Document) -> Iterator[Problem]:
    seconds = parse_duration(find_text(document.data, ("completion_window",)))
    if seconds and seconds > MAX_WINDOW_S:
        message = "`completion_window` must be at most 30 days"
        yield document.make_problem(("completion_window",), message, code="out_of_range", fix="Write 30d, or less.")


def _check_candidates(document: Document) -> Iterator[Problem]:
    for index, candidate in enumerate(find_list(document.data, _CANDIDATES)):
        yield from _check_candidate(document, candidate, (*_CANDIDATES, index))


def _check_candidate(document: Document, candidate: Any, path: KeyPath) -> Iterator[Problem]:
    cloud = find_text(candidate, ("cloud",))
    for key in find_mapping(candidate, ()):
        clouds = _CLOUDS_OF_KEY.get(key, (cloud,))
        if cloud in (*_PAID, "local") and cloud not in clouds:
            message = f"`{key}` has no effect on {cloud}"
            fix = f"Remove it; it is for {join_words(clouds, last='and')}."
            yield document.make_problem((*path, key), message, code="no_effect", fix=fix, at_key=True)
    if cloud == "local":
        yield from _check_local(document, candidate, path)
    if find_text(candidate, ("tier",)) == "community" and find_value(candidate, ("network_volume",)) is not None:
        message = "a network volume needs RunPod's secure tier"
        fix = "Write `tier: secure`, or remove network_volume."
        yield document.make_problem((*path, "network_volume"), message, code="conflict", fix=fix)


def _check_local(document: Document, candidate: Any, path: KeyPath) -> Iterator[Problem]:
    gpu = find_text(candidate, ("gpu",))
    key = "any" if "any" in find_mapping(candidate, ()) else "gpu"
    if key == "any" or (gpu and gpu.lower() != "cpu"):
        message = "a GPU on the local cloud is not supported yet; its machines are this computer"
        yield document.make_problem((*path, key), message, code="not_supported_yet", fix="Remove it.", at_key=True)


def _check_files(document: Document) -> Iterator[Problem]:
    given, output = find_text(document.data, ("input",)), find_text(document.data, ("output",))
    for key, text, problem in (("input", given, _judge_input), ("output", output, _judge_output)):
        if text and "://" not in text:
            message, fix = problem(Path(document.file).parent, text)
            if message:
                code = f"missing_{key}" if "no such" in message else f"bad_{key}"
                yield document.make_problem((key,), message, code=code, fix=fix)
    if given and output and "://" not in given + output and _is_overwritten(Path(document.file).parent, given, output):
        message = "the results would be written over the input"
        yield document.make_problem(("output",), message, code="bad_output", fix="Name another folder.")


def _is_overwritten(folder: Path, given: str, output: str) -> bool:
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        source, results = (folder / Path(given).expanduser()).resolve(), folder / Path(output).expanduser()
        return source in [(results / name).resolve() for name in ("output.jsonl", "error.jsonl")]
    return False


def _judge_input(folder: Path, text: str) -> tuple[str, str]:
    try:
        path = folder / Path(text).expanduser()
        if path.is_file():
            return "", ""
        what = "is a folder, not a file" if path.is_dir() else "there is no such file"
    except (OSError, RuntimeError, ValueError):
        what = "this path cannot be used"
    return f"`input`: {what}", f"The path counts from the job's folder, {folder.absolute()}."


def _judge_output(folder: Path, text: str) -> tuple[str, str]:
    try:
        path = folder / Path(text).expanduser()
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
    except (OSError, RuntimeError, ValueError):
        return "`output`: this path cannot be used", "Name a folder."
    if not there.is_dir():
        if there != path:
            return f"`output` cannot be written: {there.name} is a file, not a folder", "Name another folder."
        return "`output` is a file, not a folder", "Name a folder."
    if not os.access(there, os.W_OK | os.X_OK):
        return "`output` cannot be written", "Name a folder in which you may write."
    return "", ""


def _warn_repeated(document: Document) -> Iterator[Problem]:
    candidates = find_list(document.data, _CANDIDATES)
    for index, candidate in enumerate(candidates):
        if candidate in candidates[:index]:
            message = f"this candidate is the same as number {candidates.index(candidate) + 1}"
            path = (*_CANDIDATES, index)
            yield document.make_problem(path, message, code="repeated_entry", fix="Remove it.")


def _warn_draft(document: Document) -> Iterator[Problem]:
    if "deploy" in document.data and "allow_draft" in document.data:
        message = "`allow_draft` has no effect with `deploy`, which has no status"
        yield document.make_problem(("allow_draft",), message, code="no_effect", fix="Remove it.", at_key=True)


def _warn_boot_usd(document: Document) -> Iterator[Problem]:
    boot, whole = (find_number(document.data, ("limits", key)) for key in ("boot_usd", "max_usd"))
    if boot and whole and boot > whole:
        message = f"`boot_usd` ({boot:g}) can never be reached, since max_usd is {whole:g}"
        yield document.make_problem(("limits", "boot_usd"), message, code="no_effect", fix="Lower it.")


_CHECKS: tuple[Callable[[Document], Iterator[Problem]], ...] = (
    _check_window,
    _check_candidates,
    _check_files,
    check_targets,
)
_WARNINGS: tuple[Callable[[Document], Iterator[Problem]], ...] = (_warn_repeated, _warn_draft, _warn_boot_usd)
