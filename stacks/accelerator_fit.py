"""Whether a GPU is connected as a template asks, by the clouds' own table. Pure; called by the check of a job and the plan."""

from __future__ import annotations

import re
from collections.abc import Sequence

from providers.gpus import Gpu
from providers.interconnect import find_interconnect

_LAMBDA_HEAD = re.compile(r"gpu_\d+x_")


def is_connected(gpu: str, gpu_id: str, interconnect: str) -> bool:
    """Whether that GPU (our name and the cloud's id) is connected as asked; "" asks for nothing."""
    return not interconnect or find_interconnect(gpu, _LAMBDA_HEAD.sub("", gpu_id)) == interconnect


def list_connected(gpu: Gpu, interconnect: str) -> Sequence[str]:
    """The models that a name stands for and of which some board is connected as asked."""
    ids = ("", *gpu.runpod_ids, *gpu.lambda_types)
    return [model for model in gpu.models if any(is_connected(model, each, interconnect) for each in ids)]
