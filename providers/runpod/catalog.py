"""Offers out of RunPod's GPU catalog, and what is wrong with a need that it cannot meet. Pure; called by runpod.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from providers.cloud import Need, Offer
from providers.gpus import Gpu, Interconnect, name_runpod_gpu, suggest_names
from providers.http.reply import Reply, get, read_count, read_list, read_number, read_text, require_list
from providers.interconnect import find_interconnect, keep_connected
from providers.runpod.pod import NAME
from schemas.errors import SpecError

TIERS = ("secure", "community")
_STOCK_RANK = {"HIGH": 0, "MEDIUM": 1, "LOW": 2, "NONE": 9}


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU type as one tier of the catalog has it. stock and places ({data centre: stock}) are the service's words."""

    id: str
    tier: str
    memory_gb: int
    vendor: str
    interconnect: Interconnect
    is_offered: bool
    price_usd_per_gpu: float
    max_count: int
    stock: str
    places: dict[str, str]


def read_items(reply: Reply, tier: str) -> list[Item]:
    """The catalog's GPU types for one tier; entries without an id or a price are left out."""
    return [item for each in require_list(reply.data, "gpus") if (item := _read_item(each, tier)) is not None]


def make_offers(items: Sequence[Item], need: Need, wanted: Gpu | None, regions: Sequence[str]) -> list[Offer]:
    """Offers for a need, its sku_hint first, then by price, then by stock; raises SpecError for what the catalog can never give."""
    known = [item for item in items if _is_wanted(item, need, wanted)]
    _check_known(items, known, wanted)
    known = keep_connected(known, need, "RunPod")
    offered = [item for item in known if item.is_offered]
    if known and not offered and wanted is not None:
        raise SpecError(
            f"RunPod has no {wanted.name} in its {known[0].tier} cloud",
            where="tier",
            fix=f"Try tier {'community' if known[0].tier == 'secure' else 'secure'}, or another GPU.",
        )
    fitting = [item for item in offered if not 0 < item.max_count < need.count]
    if offered and not fitting and wanted is not None:
        most = max(item.max_count for item in offered)
        raise SpecError(
            f"RunPod has at most {most} of {wanted.name} in one machine, and {need.count} are asked for",
            where="count",
            fix=f"Ask for {most} or fewer, and use more replicas.",
        )
    offers = [offer for item in fitting for offer in _place(item, need.count, regions)]
    return sorted(
        offers,
        key=lambda offer: (offer.gpu_id != need.sku_hint, offer.price_usd_per_hour, _rank(offer, regions)),
    )


def list_places(items: Sequence[Item]) -> set[str]:
    """Every data centre that the catalog names."""
    return {place for item in items for place in item.places}


def _read_item(entry: Any, tier: str) -> Item | None:
    gpu_id = read_text(get(entry, "id"))
    price = read_number(get(entry, "price", tier)) or 0.0
    if not gpu_id or not isinstance(entry, dict):
        return None
    places = {
        read_text(get(place, "id")).upper(): read_text(get(place, "availability")).upper()
        for place in read_list(entry.get("dataCenters"))
        if read_text(get(place, "id"))
    }
    return Item(
        id=gpu_id,
        tier=tier,
        memory_gb=read_count(entry.get("memory")),
        vendor=read_text(entry.get("manufacturer")).lower() or "nvidia",
        interconnect=find_interconnect(name_runpod_gpu(gpu_id), gpu_id, read_text(entry.get("name"))),
        is_offered=price > 0 and entry.get(tier) is not False,
        price_usd_per_gpu=price,
        max_count=read_count(get(entry, "maxCount", tier)),
        stock=read_text(entry.get("availability")).upper(),
        places=places,
    )


def _is_wanted(item: Item, need: Need, wanted: Gpu | None) -> bool:
    if item.memory_gb < need.min_gb:
        return False
    return item.vendor == "nvidia" if wanted is None else item.id in wanted.runpod_ids


def _check_known(items: Sequence[Item], known: Sequence[Item], wanted: Gpu | None) -> None:
    if known or wanted is None or (wanted.models and wanted.runpod_ids):
        return
    ids = [item.id for item in items]
    near = suggest_names(wanted.name, [*ids, *(name_runpod_gpu(gpu_id) for gpu_id in ids)])
    raise SpecError(
        f"RunPod has no GPU {wanted.name!r}",
        where="gpu",
        fix=f"Nearest that it has: {', '.join(near) or 'none'}. `./inv offers --cloud runpod` shows all.",
    )


def _place(item: Item, count: int, regions: Sequence[str]) -> list[Offer]:
    """One offer a data centre; at the end, when any will do, one that leaves the choice to RunPod."""
    if regions:
        return [_make_offer(item, count, region, item.places.get(region, "NONE")) for region in regions]
    stocked = [_make_offer(item, count, place, stock) for place, stock in item.places.items() if stock != "NONE"]
    return [*stocked, _make_offer(item, count, "", item.stock)]


def _make_offer(item: Item, count: int, region: str, stock: str) -> Offer:
    return Offer(
        cloud=NAME,
        gpu=name_runpod_gpu(item.id),
        gpu_id=item.id,
        count=count,
        memory_gb=item.memory_gb,
        tier=item.tier,
        region=region,
        price_usd_per_hour=round(item.price_usd_per_gpu * count, 4),
        available=stock != "NONE",
        stock=stock,
    )


def _rank(offer: Offer, regions: Sequence[str]) -> tuple[bool, int, int]:
    """What is there first; then the order of the job's regions, else the stock; "anywhere" after all of the same stock."""
    place = regions.index(offer.region) if offer.region in regions else 0
    return (not offer.available, place, _STOCK_RANK.get(offer.stock, 3) * 2 + (not offer.region))
