"""Offers out of Lambda's instance types, and what is wrong with a need that they cannot meet. Pure; by lambda_cloud.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from providers.cloud import Need, Offer
from providers.gpus import Gpu, Interconnect, get_gpu_model, name_lambda_gpu, suggest_names
from providers.http.reply import GarbledAnswer, Reply, get, read_count, read_list, read_number, read_text
from providers.interconnect import find_interconnect, keep_connected
from providers.lambda_cloud.instance import NAME
from schemas.errors import SpecError

_TYPE = re.compile(r"gpu_(\d+)x_([a-z0-9_]+)")
_MEMORY = re.compile(r"\((\d+)\s*GB", re.IGNORECASE)


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    """regions: where it can be had now, as the service says; a launch may still be refused, and the other way round."""

    name: str
    gpu: str
    count: int
    memory_gb: int
    price_usd_per_hour: float
    regions: tuple[str, ...]
    interconnect: Interconnect
    architecture: Literal["x86_64", "arm64"]


def read_types(reply: Reply) -> list[InstanceType]:
    """The GPU types; entries without a count or a price are left out."""
    data = get(reply.data, "data")
    if not isinstance(data, dict):
        raise GarbledAnswer("the answer has no object 'data'")
    found = (_read_type(name, entry) for name, entry in data.items())
    return [each for each in found if each is not None]


def make_offers(types: Sequence[InstanceType], need: Need, wanted: Gpu | None, regions: Sequence[str]) -> list[Offer]:
    """Offers for a need, its sku_hint first, then by price; raises SpecError for what these types can never give."""
    known = [each for each in types if _is_wanted(each, need, wanted)]
    _check_known(types, known, wanted)
    known = keep_connected(known, need, "Lambda")
    count = wanted.lambda_count if wanted is not None and wanted.lambda_type else need.count
    if need.count not in (1, count):
        raise SpecError(
            f"{need.gpu} has {count} GPUs, and {need.count} are asked for",
            where="count",
            fix=f"Write count {count}, or a GPU name instead of a type.",
        )
    fitting = [each for each in known if each.count == count]
    if known and not fitting and wanted is not None:
        counts = sorted({each.count for each in known})
        raise SpecError(
            f"Lambda has {wanted.name} only in machines of {', '.join(map(str, counts))}, and {count} are asked for",
            where="count",
            fix=f"Ask for one of these numbers: {', '.join(map(str, counts))}.",
        )
    offers = [offer for each in fitting for offer in _place(each, regions)]
    return sorted(
        offers, key=lambda offer: (offer.gpu_id != need.sku_hint, offer.price_usd_per_hour, not offer.available)
    )


def list_regions(types: Sequence[InstanceType]) -> set[str]:
    """Every region that some type can be had in now."""
    return {region for each in types for region in each.regions}


def _read_type(name: str, entry: Any) -> InstanceType | None:
    match = _TYPE.fullmatch(name)
    row = get(entry, "instance_type")
    cents = read_number(get(row, "price_cents_per_hour")) or 0.0
    if match is None or cents <= 0:
        return None
    described = read_text(get(row, "gpu_description")) or read_text(get(row, "description"))
    memory = _MEMORY.search(described)
    gpu = name_lambda_gpu(match[2], int(memory[1][:5]) if memory else 0)
    model = get_gpu_model(gpu)
    memory_gb = int(memory[1][:5]) if memory else model.memory_gb if model is not None else 0
    is_arm = read_text(get(row, "architecture")) == "arm64" or (model is not None and model.architecture == "arm64")
    names = (read_text(get(region, "name")) for region in read_list(get(entry, "regions_with_capacity_available")))
    return InstanceType(
        name=name,
        gpu=gpu,
        count=read_count(get(row, "specs", "gpus")) or int(match[1][:3]),
        memory_gb=memory_gb,
        price_usd_per_hour=round(cents / 100, 4),
        regions=tuple(region for region in names if region),
        interconnect=find_interconnect(gpu, match[2], described),
        architecture="arm64" if is_arm else "x86_64",
    )


def _is_wanted(each: InstanceType, need: Need, wanted: Gpu | None) -> bool:
    """arm64 only when it was named: most images and wheels do not run there."""
    if each.memory_gb < need.min_gb:
        return False
    if wanted is None:
        return each.architecture == "x86_64"
    return each.name == wanted.lambda_type if wanted.lambda_type else each.gpu in wanted.models


def _check_known(types: Sequence[InstanceType], known: Sequence[InstanceType], wanted: Gpu | None) -> None:
    if known or wanted is None or (wanted.lambda_types and not wanted.lambda_type):
        return
    near = suggest_names(wanted.lambda_type or wanted.name, {name for each in types for name in (each.name, each.gpu)})
    raise SpecError(
        f"Lambda has no GPU {wanted.lambda_type or wanted.name!r}",
        where="gpu",
        fix=f"Nearest that it has: {', '.join(near) or 'none'}. `./inv offers --cloud lambda` shows all.",
    )


def _place(each: InstanceType, regions: Sequence[str]) -> list[Offer]:
    """One offer a region; sold out where the service does not list it."""
    places = list(regions) or list(each.regions) or [""]
    return [_make_offer(each, region, is_listed=region in each.regions) for region in places]


def _make_offer(each: InstanceType, region: str, *, is_listed: bool) -> Offer:
    return Offer(
        cloud=NAME,
        gpu=each.gpu,
        gpu_id=each.name,
        count=each.count,
        memory_gb=each.memory_gb,
        region=region,
        price_usd_per_hour=each.price_usd_per_hour,
        available=is_listed,
        architecture=each.architecture,
    )
