"""How the GPUs of one machine are connected, and which offers a need leaves. Pure; called by the clouds' catalogs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from providers.cloud import Need
from providers.gpus import Interconnect, load_table
from schemas.errors import SpecError

_FORM = re.compile(r"(?P<nvlink>SXM)|(?P<pcie>PCIE)", re.IGNORECASE)


class Connected(Protocol):
    """An entry of a cloud's catalog; count of GPUs does not matter, a single GPU has its form too."""

    @property
    def interconnect(self) -> Interconnect: ...


Entry = TypeVar("Entry", bound=Connected)


def find_interconnect(name: str, spelling: str, described: str = "") -> Interconnect:
    """How the GPUs of a machine are connected. name: the vocabulary's; spelling: the cloud's id or what stands after
    `gpu_<count>x_`; described: the cloud's own words, which count more than the table when they name a form."""
    form = _FORM.search(described)
    model = load_table().models.get(name)
    if form is None and model is not None:
        return "pcie" if spelling in model.pcie else model.interconnect
    form = form or _FORM.search(spelling)
    if form is None:
        return ""
    return "nvlink" if form["nvlink"] else "pcie"


def keep_connected(entries: Sequence[Entry], need: Need, cloud: str) -> list[Entry]:
    """The entries whose GPUs are connected as the need says; raises SpecError when it can never be met there."""
    if not need.interconnect:
        return list(entries)
    fitting = [entry for entry in entries if entry.interconnect == need.interconnect]
    if entries and not fitting and need.gpu:
        kinds = sorted({entry.interconnect or "unknown" for entry in entries})
        raise SpecError(
            f"{cloud} has no {need.gpu} with {need.interconnect} between its GPUs, only: {', '.join(kinds)}",
            where="interconnect",
            fix="Change interconnect in the template's accelerator or leave it out, or ask for another GPU.",
        )
    return fitting
