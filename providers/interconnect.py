"""How the GPUs of one machine are connected, and which models and offers a need leaves. Pure.

Called by the clouds' catalogs, by the check of a job before any cloud is asked, and by what a plan says it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from providers.cloud import Need
from providers.gpus import Gpu, Interconnect, load_table
from schemas.errors import SpecError

_LAMBDA_HEAD = re.compile(r"gpu_\d+x_")
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


def is_connected(gpu: str, gpu_id: str, interconnect: Interconnect) -> bool:
    """Whether a GPU (our name and the cloud's whole id) is connected so, by the table; "" asks for nothing."""
    return not interconnect or find_interconnect(gpu, _LAMBDA_HEAD.sub("", gpu_id)) == interconnect


def list_connected_models(gpu: Gpu, interconnect: Interconnect) -> Sequence[str]:
    """The models that a name stands for and of which some board is connected so, by the table."""
    ids = ("", *gpu.runpod_ids, *gpu.lambda_types)
    return [model for model in gpu.models if any(is_connected(model, each, interconnect) for each in ids)]


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
