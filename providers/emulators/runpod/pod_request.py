"""Rules for a create that its schema cannot say, and the choice of a place for it. Called by POST /v2/pods and by GraphQL."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from providers.emulators.runpod.account import RunPodAccount
from providers.emulators.runpod.pod import parse_args
from providers.emulators.runpod.pod_view import find_gpu
from providers.emulators.runpod.problem import no_capacity, not_found, refuse
from providers.emulators.stock import load_table

_PORT = re.compile(r"\d{1,5}/(tcp|http)")
_CPU_USD_PER_VCPU_HOUR = 0.03


class Place(msgspec.Struct, frozen=True, kw_only=True):
    region: str
    price_usd_per_hour: float


def check_pod(account: RunPodAccount, body: dict[str, Any]) -> None:
    """Raise the 400, 404 or 422 of a body that breaks a rule."""
    if "templateId" in body:
        raise not_found("template not found")
    if "disk" not in body:
        raise refuse(400, "You must either provide a template id or pod configuration parameters")
    if ("gpu" in body) == ("cpu" in body):
        raise refuse(400, "exactly one of gpu and cpu must be given")
    gpu = body.get("gpu") or {}
    if gpu.get("allowedCudaVersions") and "minCudaVersion" in gpu:
        raise refuse(400, "allowedCudaVersions and minCudaVersion exclude each other")
    mounts = body.get("mounts", {})
    if "persistent" in mounts and "network" in mounts:
        raise refuse(400, "persistent and network mounts exclude each other")
    for port in body.get("ports", []):
        if not _PORT.fullmatch(port):
            raise refuse(400, f"port '{port}' is not of the form number/tcp or number/http")
    check_command(body)
    check_account_objects(account, body)
    if gpu and not find_gpu(gpu["id"]):
        status = 422 if account.faults.take("unknown_gpu_422", body["name"]) else 400
        raise refuse(status, f"Unknown GPU type: {gpu['id']}")


def check_command(body: dict[str, Any]) -> None:
    """args beside the arrays is good only when both say the same."""
    try:
        stored = parse_args(body.get("args", ""))
    except (ValueError, AttributeError) as error:
        raise refuse(400, f"args cannot be read: {error}") from None
    arrays = (body.get("entrypoint") or None, body.get("cmd") or None)
    if body.get("args") and any(arrays) and (stored[0] or None, stored[1] or None) != arrays:
        raise refuse(400, "args and entrypoint/cmd describe different commands")


def check_account_objects(account: RunPodAccount, body: dict[str, Any]) -> None:
    registry = body.get("registry")
    if registry is not None and registry not in account.registries:
        raise not_found("registry not found")
    for mount in body.get("mounts", {}).get("network", []):
        if mount["volumeId"] not in account.volumes:
            raise refuse(400, "network volume not found")
        if body.get("cloud") == "COMMUNITY":
            raise refuse(400, "network volumes need the secure cloud")


def place_pod(account: RunPodAccount, body: dict[str, Any]) -> Place:
    """Take stock for it; raises the 400 for no capacity."""
    if "cpu" in body:
        return Place(region=first_region(body), price_usd_per_hour=_CPU_USD_PER_VCPU_HOUR * body["cpu"]["vcpuCount"])
    gpu, cloud = body["gpu"], body.get("cloud", "SECURE")
    subject = f"{gpu['id']} {cloud} {','.join(body.get('dataCenterIds', []))} {body['name']}"
    for knob in ("capacity_race", "sold_out"):
        if account.faults.take(knob, subject):
            raise no_capacity(fault=knob)
    if "count" not in gpu and account.faults.take("count_quirk", subject):
        raise no_capacity()
    count = gpu.setdefault("count", 1)
    kind = find_gpu(gpu["id"])
    price = kind["price"][cloud.lower()]
    if not price or count > kind["maxCount"][cloud.lower()] or not fits_host(kind, gpu):
        raise no_capacity()
    region = account.pods.stock.take(gpu["id"], cloud, list_regions(account, body, gpu["id"], cloud), count)
    if region is None:
        raise no_capacity()
    return Place(region=region, price_usd_per_hour=price * count)


def list_regions(account: RunPodAccount, body: dict[str, Any], gpu_id: str, cloud: str) -> list[str]:
    """Data centres that may take it; what the client prefers is what it gets, or nothing."""
    wanted: list[str] = body.get("dataCenterIds") or account.pods.stock.regions(gpu_id, cloud)
    pinned = {account.volumes[mount["volumeId"]]["dataCenter"] for mount in body.get("mounts", {}).get("network", [])}
    return [region for region in wanted if not pinned or region in pinned]


def fits_host(kind: dict[str, Any], gpu: dict[str, Any]) -> bool:
    """Whether the hosts of this kind pass the request's filters."""
    cuda = kind["cudaVersion"]
    allowed = gpu.get("allowedCudaVersions") or [cuda]
    floor = gpu.get("minCudaVersion", "0.0")
    return (
        cuda in allowed
        and (not cuda or read_version(cuda) >= read_version(floor))
        and gpu.get("minRamPerGpu", 0) <= kind["ramPerGpu"]
        and gpu.get("minVcpuCountPerGpu", 0) <= kind["vcpusPerGpu"]
    )


def read_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def first_region(body: dict[str, Any]) -> str:
    wanted = body.get("dataCenterIds")
    return str(wanted[0] if wanted else load_table("runpod_stock")["dataCenters"][0]["id"])
