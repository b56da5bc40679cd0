"""GPU names: one vocabulary for jobs and templates, and what each cloud calls them; the data stands in gpus.yaml.

Called by the clouds' files for offers, and by whoever checks a GPU name that a user wrote.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from schemas.errors import SpecError

TABLE = Path(__file__).with_name("gpus.yaml")
_RUNPOD_ID = re.compile(r"(NVIDIA|AMD|Tesla) \S.{0,80}")
_LAMBDA_TYPE = re.compile(r"gpu_(\d+)x_([a-z0-9_]{1,60})")

Interconnect = Literal["", "nvlink", "pcie", "other"]
"""How the GPUs of one machine are connected; "" is unknown, other is neither."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for. models: the exact models of the vocabulary that count as it, the usual one first.

    memory_gb: memory of one GPU (the least of the models), 0 = unknown. runpod_ids: exact ids of RunPod's catalog.
    lambda_types: what stands after `gpu_<count>x_` in Lambda's names.
    lambda_type: one exact Lambda type, when the name was one; lambda_count: its number of GPUs.
    """

    name: str
    memory_gb: int
    models: tuple[str, ...] = ()
    runpod_ids: tuple[str, ...] = ()
    lambda_types: tuple[str, ...] = ()
    lambda_type: str = ""
    lambda_count: int = 0
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    vendor: Literal["nvidia", "amd"] = "nvidia"


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    memory_gb: int
    runpod: tuple[str, ...] = ()
    lambda_types: tuple[str, ...] = msgspec.field(default=(), name="lambda")
    aliases: tuple[str, ...] = ()
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    vendor: Literal["nvidia", "amd"] = "nvidia"
    interconnect: Interconnect = "pcie"
    pcie: tuple[str, ...] = ()


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: dict[str, _Model]
    families: dict[str, tuple[str, ...]]


def resolve_gpu(name: str) -> Gpu:
    """What a name means: a model, a family, an alias in any spelling, or a cloud's exact id (also one that is not in the
    table, with memory_gb 0). Raises SpecError with the nearest names for anything else."""
    lambda_type = _LAMBDA_TYPE.fullmatch(name.strip())
    if lambda_type is not None:
        return _resolve_lambda_type(name.strip(), int(lambda_type[1]), lambda_type[2])
    exact = name_runpod_gpu(name.strip())
    if exact != name.strip():
        return _make_gpu(name.strip(), exact, (exact,))
    found = _index().get(_squeeze(name))
    if found is not None:
        return _make_gpu(name.strip(), *found)
    if _RUNPOD_ID.fullmatch(name.strip()):
        return Gpu(name=name.strip(), memory_gb=0, runpod_ids=(name.strip(),))
    raise SpecError(
        f"no GPU is called {name!r}",
        fix=f"Nearest: {', '.join(suggest_names(name, list_gpu_names())) or 'none'}. `./inv offers` shows all there are.",
    )


def list_gpu_names() -> tuple[str, ...]:
    """Every name of the vocabulary, families included."""
    table = load_table()
    return tuple(sorted({*table.models, *table.families}))


def name_runpod_gpu(gpu_id: str) -> str:
    """The vocabulary's name of a RunPod GPU id; the id itself when the table does not know it."""
    found = (name for name, model in load_table().models.items() if gpu_id in model.runpod)
    return next(found, gpu_id)


def name_lambda_gpu(suffix: str, memory_gb: int) -> str:
    """The vocabulary's name of a Lambda type, by what stands after `gpu_<count>x_` and, between equals, by its memory.

    memory_gb 0 means unknown. Returns the suffix itself when the table does not know it.
    """
    parts = suffix.split("_")
    ranked = sorted(
        (
            (_same_parts(parts, known.split("_")), name)
            for name, model in load_table().models.items()
            for known in model.lambda_types
        ),
        reverse=True,
    )
    for same, name in ranked:
        known_gb = load_table().models[name].memory_gb
        if same and (not memory_gb or abs(known_gb - memory_gb) <= 0.06 * known_gb):
            return name
    kin = (name for name, model in load_table().models.items() if _is_kin(model, parts[0], memory_gb))
    return next(kin, suffix)


def get_gpu_model(name: str) -> Gpu | None:
    """The model of exactly that vocabulary name, if there is one."""
    return _make_gpu(name, name, (name,)) if name in load_table().models else None


def suggest_names(name: str, known: Iterable[str]) -> Sequence[str]:
    """Up to four known names that look like this one."""
    by_key: dict[str, str] = {}
    for each in known:
        by_key.setdefault(_squeeze(each), each)
    return [by_key[key] for key in difflib.get_close_matches(_squeeze(name), list(by_key), n=4, cutoff=0.4)]


@functools.cache
def load_table() -> _Table:
    """The table as records; raises SpecError that names the file when it was edited into something else."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(TABLE.read_text(encoding="utf-8"))
        table = msgspec.convert(data, type=_Table)
    except (YAMLError, msgspec.ValidationError) as error:
        raise SpecError(
            f"the table of GPU names cannot be read: {error}", where=str(TABLE), fix="Correct it."
        ) from error
    missing = [name for models in table.families.values() for name in models if name not in table.models]
    if missing:
        raise SpecError(f"a family names {missing[0]!r}, which is no model", where=str(TABLE), fix="Correct it.")
    return table


@functools.cache
def _index() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Squeezed spelling -> the vocabulary's name and its models."""
    table = load_table()
    index: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name, model in table.models.items():
        for spelling in (name, *model.aliases, *model.runpod):
            index[_squeeze(spelling)] = (name, (name,))
    return {**index, **{_squeeze(name): (name, models) for name, models in table.families.items()}}


def _resolve_lambda_type(type_name: str, count: int, suffix: str) -> Gpu:
    model = get_gpu_model(name_lambda_gpu(suffix, 0))
    if model is None:
        return Gpu(name=type_name, memory_gb=0, lambda_type=type_name, lambda_count=count)
    return msgspec.structs.replace(model, lambda_type=type_name, lambda_count=count)


def _make_gpu(asked: str, name: str, models: Sequence[str]) -> Gpu:
    """A record over one or more models; an exact RunPod id that was asked for stays exact."""
    rows = [load_table().models[model] for model in models]
    ids = tuple(gpu_id for row in rows for gpu_id in row.runpod)
    exact = tuple(gpu_id for gpu_id in ids if gpu_id == asked)
    return Gpu(
        name=name,
        memory_gb=min(row.memory_gb for row in rows),
        models=tuple(models),
        runpod_ids=exact or ids,
        lambda_types=tuple(known for row in rows for known in row.lambda_types),
        architecture=rows[0].architecture,
        vendor=rows[0].vendor,
    )


def _squeeze(name: str) -> str:
    letters = re.sub(r"[^A-Z0-9]", "", name.upper()).removeprefix("NVIDIA")
    return f"{letters}B" if re.search(r"\dG$", letters) else letters


def _same_parts(parts: Sequence[str], known: Sequence[str]) -> int:
    """How many `_` parts of a type's name are known, 0 unless all of `known` stand at its start."""
    return len(known) if list(parts[: len(known)]) == list(known) else 0


def _is_kin(model: _Model, first: str, memory_gb: int) -> bool:
    """The same chip under another type name, told apart by memory alone."""
    is_same_chip = any(known.split("_")[0] == first for known in model.lambda_types)
    return is_same_chip and abs(model.memory_gb - memory_gb) <= 0.06 * model.memory_gb
