"""Whether a job's candidates can be what they say, as far as the table of GPU names and the launches know; offline.

Called by validation, which adds what is found here to the problems of the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from providers.gpus import Gpu, resolve_gpu
from providers.interconnect import list_connected_models
from schemas.errors import Problem, SpecError
from schemas.job import Candidate, LoadedJob
from schemas.yaml_source import KeyPath, place_problem
from stacks.launch.launch import list_launch_refusals


def find_machine_problems(loaded: LoadedJob) -> list[Problem]:
    """Every candidate that no cloud can give, and everything that its engine cannot honour."""
    return [*_check_launches(loaded), *_check_gpus(loaded)]


def _check_launches(loaded: LoadedJob) -> Iterator[Problem]:
    clouds = dict.fromkeys(candidate.cloud for candidate in loaded.job.machines.candidates)
    refusals = [refusal for cloud in clouds for refusal in list_launch_refusals(loaded.template, cloud)]
    for refusal in dict.fromkeys(refusals):
        path = tuple(int(part) if part.isdigit() else part for part in refusal.path.split("."))
        file, at = _find_owner(loaded, path)
        yield place_problem(file, at, refusal.message, code="launch", fix=refusal.fix)


def _find_owner(loaded: LoadedJob, path: KeyPath) -> tuple[Path, KeyPath]:
    """The file and the place in it that a field of the changed template comes from."""
    job = Path(loaded.job.source)
    if path[0] == "engine_args" and path[-1] in loaded.job.overrides:
        return job, ("overrides", *path)
    is_inline = loaded.template.version == "inline"
    return (job, ("deploy", *path)) if is_inline else (Path(loaded.template.source), ("spec", *path))


def _check_gpus(loaded: LoadedJob) -> Iterator[Problem]:
    for index, candidate in enumerate(loaded.job.machines.candidates):
        if candidate.cloud != "local" and candidate.gpu:
            message, code, fix = _judge_gpu(candidate)
            if message:
                path: KeyPath = ("machines", "candidates", index, "gpu")
                yield place_problem(Path(loaded.job.source), path, message, code=code, fix=fix)


def _judge_gpu(candidate: Candidate) -> tuple[str, str, str]:
    try:
        gpu = resolve_gpu(candidate.gpu)
    except SpecError as error:
        return error.what, "unknown_gpu", error.fix
    if gpu.lambda_type and candidate.cloud == "runpod":
        return f"{gpu.lambda_type} is a machine of lambda", "unknown_gpu", "Write the GPU's name, such as A100."
    if gpu.models and not _list_ids(gpu, candidate.cloud):
        fix = "Name another GPU with `gpu`, or take `any: {min_gb: ...}`."
        return f"{candidate.cloud} has no {gpu.name}", "unknown_gpu", fix
    if gpu.memory_gb and candidate.min_gb and _find_most_memory(gpu) < candidate.min_gb:
        message = f"{gpu.name} has {_find_most_memory(gpu)} GB, and at least {candidate.min_gb} are asked for"
        return message, "memory", "Take a larger GPU, or lower the template's vram_gb."
    if candidate.interconnect and gpu.models and not list_connected_models(gpu, candidate.interconnect):
        message = f"{gpu.name} is not connected by {candidate.interconnect}, as the template asks"
        return message, "interconnect", "Take another GPU, or correct the template's interconnect."
    return "", "", ""


def _list_ids(gpu: Gpu, cloud: str) -> tuple[str, ...]:
    return gpu.runpod_ids if cloud == "runpod" else (*gpu.lambda_types, *filter(None, [gpu.lambda_type]))


def _find_most_memory(gpu: Gpu) -> int:
    """A family's largest model counts: the smaller ones are left out."""
    return max((resolve_gpu(model).memory_gb for model in gpu.models), default=gpu.memory_gb)
