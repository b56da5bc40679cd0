"""What may be typed instead of a job file, and whether it can be meant: the flags of `run --model` and of `new`.

Called by the writing of jobs, and by the command line.
"""

from __future__ import annotations

import math
import re

import msgspec

from providers.gpus import resolve_gpu
from runtime.objects.object_settings import is_object_address
from schemas.errors import SpecError
from schemas.home_path import expand_home

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank")
_CLOUDS = ("local", "runpod", "lambda")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_HUB_MODEL = re.compile(r"[\w.-]+/[\w.-]+")


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


def check_flags(flags: JobFlags) -> None:
    """Raise SpecError for the first flag that is missing, wrong, or does not go with another."""
    check_words(flags)
    check_cloud(flags)
    _check_numbers(flags)
    if not flags.input:
        raise SpecError("--model needs --input", fix="Name the batch file: --input x.jsonl")
    if not is_object_address(flags.input) and not expand_home(flags.input).is_file():
        raise SpecError("there is no such input file", where=flags.input, fix="Correct --input.")


def check_words(flags: JobFlags) -> None:
    """The flags that any job may have, where they were typed."""
    if flags.cloud and flags.cloud not in _CLOUDS:
        raise SpecError(f"there is no cloud {flags.cloud!r}", where="--cloud", fix=f"One of: {', '.join(_CLOUDS)}")
    if flags.endpoint and flags.endpoint not in ENDPOINTS:
        raise SpecError(
            f"there is no endpoint {flags.endpoint!r}", where="--endpoint", fix=f"One of: {', '.join(ENDPOINTS)}"
        )
    if flags.name and not _NAME.fullmatch(flags.name):
        raise SpecError(
            f"{flags.name!r} cannot be a job's name", where="--name", fix="Small letters, digits and '-', at most 40."
        )


def check_cloud(flags: JobFlags) -> None:
    if not flags.cloud:
        raise SpecError("--model needs --cloud", where="--cloud", fix=f"One of: {', '.join(_CLOUDS)}")
    if flags.cloud == "local":
        if flags.gpu or flags.count:
            flag = "--gpu" if flags.gpu else "--count"
            raise SpecError(f"{flag} does not go with --cloud local", where=flag, fix=f"Leave {flag} out.")
        if not is_local_model(flags.model):
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


def read_amount(text: str) -> float | None:
    """A number above 0; None for what is left out or no such number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def is_local_model(model: str) -> bool:
    return model.startswith("builtin:") or model.endswith(".gguf")


def _check_numbers(flags: JobFlags) -> None:
    for flag, count in (("--count", flags.count), ("--replicas", flags.replicas)):
        if count < 0:
            raise SpecError(f"{flag} must be 1 or more, not {count}", where=flag, fix="Correct it, or leave it out.")
    for flag, text in (("--max-usd", flags.max_usd), ("--max-hours", flags.max_hours)):
        if text and read_amount(text) is None:
            raise SpecError(f"{flag} takes a number above 0, not {text!r}", where=flag, fix="Correct it.")
