"""How fast a GPU works through a batch, by the table in throughput.yaml: measured, or scaled from what was. Called by the plan."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from providers.gpus import resolve_gpu
from schemas.errors import SpecError
from schemas.template import Template
from stacks.planning.span import Span

TABLE = Path(__file__).with_name("throughput.yaml")
_UNKNOWN_BILLIONS = 8.0
# Over several GPUs a model loses something to talk between them.
_SHARED = Span(low=0.6, likely=0.85, high=1.0)
# From 8 to 70 billion on one GPU the speed falls to a 6.5th (NVIDIA's figures), not to an 8.75th.
_SIZE_POWER = 0.9
_CPU = Span(low=20.0, likely=1000.0, high=5000.0)
_BITS = {"fp8": 8, "int8": 8, "awq": 4, "gptq": 4}
_EXPERTS = re.compile(r"(\d+(?:\.\d+)?)b-a(\d+(?:\.\d+)?)b(?![a-z0-9])")
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])")


class ModelSize(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters in billions: all of them, and those that work on one token; is_known False: nothing says."""

    billions: float
    active: float
    weight_bits: int
    is_known: bool = True

    @property
    def weight_gb(self) -> float:
        """How much there is to download."""
        return self.billions * self.weight_bits / 8


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Output tokens a second of one machine, and in words where that is from."""

    tokens_per_s: Span
    words: str


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gpu: str
    billions: float
    weight_bits: int
    tokens_per_s: tuple[float, float, float]
    source: str
    experts: bool = False


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    billions: float
    active: float = 0.0


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    url: str
    note: str = ""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    speeds: tuple[_Row, ...]
    gigabytes_per_s: Mapping[str, float]
    models: Mapping[str, _Model]
    sources: Mapping[str, Source]


def measure_model(template: Template) -> ModelSize:
    """The size of a template's model: from the table, else from its name."""
    spec = template.spec
    bits = _BITS.get(spec.quantization.weight, 16)
    names = [spec.quantization.weights_artifact_uri, spec.model_source.uri, template.name]
    for name in (each.lower() for each in names if each):
        known = [key for key in load_table().models if key in name]
        if known:
            model = load_table().models[max(known, key=len)]
            return ModelSize(billions=model.billions, active=model.active or model.billions, weight_bits=bits)
        size = _read_size(name)
        if size is not None:
            return ModelSize(billions=size[0], active=size[1], weight_bits=bits)
    return ModelSize(billions=_UNKNOWN_BILLIONS, active=_UNKNOWN_BILLIONS, weight_bits=bits, is_known=False)


def find_speed(gpu: str, count: int, size: ModelSize) -> Speed:
    """What the table says of `count` GPUs of that name for a model of that size; `cpu` is this computer."""
    if gpu == "cpu":
        return Speed(tokens_per_s=_CPU, words="a small model on this computer's processor")
    model = _name_model(gpu)
    row = min(load_table().speeds, key=lambda each: _measure_distance(each, model, size))
    factor = _scale(row, model, size)
    is_same = row.gpu == model and 0.8 <= factor <= 1.25 and size.is_known
    widening = 1.0 if is_same else 1.5 if size.is_known and model in load_table().gigabytes_per_s else 3.0
    one = Span(low=row.tokens_per_s[0], likely=row.tokens_per_s[1], high=row.tokens_per_s[2]).times(factor)
    shared = _SHARED.times(count) if count > 1 else Span(low=1, likely=1, high=1)
    return Speed(tokens_per_s=one.widened(widening).by(shared), words=_describe(row, gpu, size, is_same))


@functools.cache
def load_table() -> Table:
    """The table as records; raises SpecError that names the file when it was edited into something else."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        table = msgspec.convert(YAML(typ="safe", pure=True).load(TABLE.read_text(encoding="utf-8")), type=Table)
    except (YAMLError, msgspec.ValidationError) as error:
        raise SpecError(f"the table of speeds cannot be read: {error}", where=str(TABLE), fix="Correct it.") from error
    for row in table.speeds:
        slow, likely, fast = row.tokens_per_s
        if row.source not in table.sources or row.gpu not in table.gigabytes_per_s or not 0 < slow <= likely <= fast:
            raise SpecError(
                f"a row of {row.gpu} has no source, no bandwidth, or speeds that do not ascend",
                where=str(TABLE),
                fix="Correct it.",
            )
    return table


def _read_size(name: str) -> tuple[float, float] | None:
    experts = _EXPERTS.search(name)
    if experts is not None:
        return float(experts[1]), float(experts[2])
    sizes = [float(number) / (1000 if unit == "m" else 1) for number, unit in _SIZE.findall(name)]
    return (sizes[0], sizes[0]) if sizes else None


def _name_model(gpu: str) -> str:
    """The vocabulary's model behind a name; of a family the usual one."""
    try:
        found = resolve_gpu(gpu)
    except SpecError:
        return gpu
    return found.models[0] if found.models else gpu


def _measure_distance(row: _Row, gpu: str, size: ModelSize) -> float:
    """How far a row is from what is asked: another GPU is further than another size or precision."""
    ratio = _get_bandwidth(gpu) / _get_bandwidth(row.gpu)
    return (
        2 * abs(math.log(ratio))
        + (0.0 if row.gpu == gpu else 0.3)
        + (0.0 if row.experts == (size.active < size.billions) else 1.5)
        + abs(math.log(size.active / row.billions))
        + abs(math.log(size.weight_bits / row.weight_bits))
    )


def _scale(row: _Row, gpu: str, size: ModelSize) -> float:
    bandwidth = _get_bandwidth(gpu) / _get_bandwidth(row.gpu)
    return bandwidth * math.pow(row.billions / size.active, _SIZE_POWER) * math.sqrt(row.weight_bits / size.weight_bits)


def _get_bandwidth(gpu: str) -> float:
    """A GPU that the table does not know counts as a small one, in the middle of those that are rented."""
    return load_table().gigabytes_per_s.get(gpu, 700.0)


def _describe(row: _Row, gpu: str, size: ModelSize, is_same: bool) -> str:
    source = load_table().sources[row.source].title
    if is_same:
        return f"measured by others: {source}"
    of = f"{size.active:g} billion parameters" if size.is_known else "a model of unknown size, taken as 8 billion"
    return f"{of} in {size.weight_bits} bits on {gpu}, scaled from {row.billions:g} on {row.gpu}: {source}"
