"""What an emulated cloud has to rent: prices, data centres and free machines, from the tables in data/. Used by both servers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("data")


@functools.cache
def load_table(name: str) -> Any:
    """One of the tables, as it is written; callers do not change it."""
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


class Stock:
    """Free units by kind (GPU id or instance type), tier ("" where a cloud has none) and region."""

    def __init__(self, free: dict[tuple[str, str, str], int]) -> None:
        self._free = dict(free)

    def free(self, kind: str, tier: str, region: str) -> int:
        return self._free.get((kind, tier, region), 0)

    def set(self, kind: str, tier: str, region: str, units: int) -> None:
        self._free[kind, tier, region] = units

    def regions(self, kind: str, tier: str) -> list[str]:
        """Regions that may have this kind, in the table's order."""
        return [region for (its_kind, its_tier, region) in self._free if (its_kind, its_tier) == (kind, tier)]

    def take(self, kind: str, tier: str, regions: Iterable[str], units: int) -> str | None:
        """Take units in the first region that has them; the region, or None when none has."""
        for region in regions:
            if self.free(kind, tier, region) >= units:
                self._free[kind, tier, region] -= units
                return region
        return None

    def give_back(self, kind: str, tier: str, region: str, units: int) -> None:
        self._free[kind, tier, region] = self.free(kind, tier, region) + units


def level(units: int, wanted: int) -> str:
    """RunPod's word for how many machines with so many GPUs could still be had."""
    machines = units // max(1, wanted)
    return "NONE" if machines == 0 else "LOW" if machines < 3 else "MEDIUM" if machines < 8 else "HIGH"


def runpod_stock() -> Stock:
    table = load_table("runpod_stock")
    free = {
        (gpu["id"], tier, region): units
        for gpu in table["gpus"]
        for tier, regions in gpu["stock"].items()
        for region, units in regions.items()
    }
    return Stock(free)


def lambda_stock() -> Stock:
    table = load_table("lambda_stock")
    return Stock(
        {(kind["name"], "", region): units for kind in table["types"] for region, units in kind["stock"].items()}
    )
