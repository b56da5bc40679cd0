"""The catalogue routes of the emulated RunPod: GPU types and data centres with prices and stock."""

from __future__ import annotations

from typing import Any

from providers.emulators.call import Answer, Call
from providers.emulators.runpod.account import RunPodAccount
from providers.emulators.runpod.problem import not_found, refuse
from providers.emulators.stock import level, load_table

_NEED_INCLUDE = ("product", "count", "cloud", "cudaVersions", "minCudaVersion")
_SERVERLESS_FACTOR = 1.4


def list_gpus(account: RunPodAccount, call: Call) -> Answer:
    check_query(call.query)
    countries = split(call.query.get("countryCodes"))
    gpus = [
        show_gpu(account, gpu, call.query)
        for gpu in load_table("runpod_stock")["gpus"]
        if not countries or set(countries) & set(list_countries(gpu))
    ]
    return Answer(status=200, body={"gpus": gpus})


def get_gpu(account: RunPodAccount, call: Call) -> Answer:
    check_query(call.query)
    wanted = call.path_value("id")
    gpu = next((gpu for gpu in load_table("runpod_stock")["gpus"] if gpu["id"] == wanted), None)
    if gpu is None:
        raise not_found("resource not found")
    return Answer(status=200, body=show_gpu(account, gpu, call.query))


def list_data_centers(account: RunPodAccount, call: Call) -> Answer:
    regions = split(call.query.get("regions"))
    centers = [
        show_data_center(account, center, call.query)
        for center in load_table("runpod_stock")["dataCenters"]
        if not regions or center["region"] in regions
    ]
    return Answer(status=200, body={"dataCenters": centers})


def get_data_center(account: RunPodAccount, call: Call) -> Answer:
    wanted = call.path_value("id")
    center = next((row for row in load_table("runpod_stock")["dataCenters"] if row["id"] == wanted), None)
    if center is None:
        raise not_found("resource not found")
    return Answer(status=200, body=show_data_center(account, center, call.query))


def check_query(query: dict[str, str]) -> None:
    """Parameters that depend on each other."""
    if ("include" in query) != ("product" in query):
        raise refuse(400, "include and product must be given together")
    alone = [name for name in _NEED_INCLUDE if name in query and "include" not in query]
    if alone:
        raise refuse(400, f"{alone[0]} is valid only with include=AVAILABILITY")
    if "cudaVersions" in query and "minCudaVersion" in query:
        raise refuse(400, "cudaVersions and minCudaVersion exclude each other")


def show_gpu(account: RunPodAccount, gpu: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
    price = gpu["price"]
    shown = {
        "id": gpu["id"],
        "name": gpu["name"],
        "pool": gpu["pool"],
        "manufacturer": gpu["manufacturer"],
        "memory": gpu["memory"],
        "secure": bool(price["secure"]),
        "community": bool(price["community"]),
        "price": {**price, "serverless": round(price["secure"] * _SERVERLESS_FACTOR, 2)},
        "maxCount": gpu["maxCount"],
    }
    if "include" not in query:
        return shown
    cloud, count = query.get("cloud", "SECURE"), int(query.get("count", "1"))
    countries = split(query.get("countryCodes"))
    has_cuda = suits_cuda(gpu["cudaVersion"], query)
    centers = [
        {"id": center["id"], "name": center["name"], "availability": word}
        for center in load_table("runpod_stock")["dataCenters"]
        if not countries or center["country"] in countries
        if has_cuda and (word := find_level(account, gpu, cloud, center["id"], count)) != "NONE"
    ]
    order = ["NONE", "LOW", "MEDIUM", "HIGH"]
    shown["availability"] = max((center["availability"] for center in centers), key=order.index, default="NONE")
    if centers:
        shown["dataCenters"] = centers
    if gpu["cudaVersion"]:
        shown["cudaVersions"] = [{"version": gpu["cudaVersion"], "available": bool(centers)}]
    return shown


def find_level(account: RunPodAccount, gpu: dict[str, Any], cloud: str, region: str, count: int) -> str:
    """What the catalogue says, which a knob may make a lie."""
    subject = f"{gpu['id']} {cloud} {region}"
    if region not in account.pods.stock.regions(gpu["id"], cloud) or count > gpu["maxCount"][cloud.lower()]:
        return "NONE"
    if account.faults.peek("sold_out", subject):
        return "NONE"
    if account.faults.peek("capacity_race", subject):
        return "HIGH"
    return level(account.pods.stock.free(gpu["id"], cloud, region), count)


def suits_cuda(version: str, query: dict[str, str]) -> bool:
    wanted = split(query.get("cudaVersions"))
    if wanted:
        return version in wanted
    floor = query.get("minCudaVersion")
    if floor is None or not version:
        return True
    parts, needed = [int(part) for part in version.split(".")], [int(part) for part in floor.split(".")]
    return parts[: len(needed)] >= needed


def show_data_center(account: RunPodAccount, center: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
    shown = {key: center[key] for key in ("id", "name", "region", "globalNetwork", "networkVolumeTypes", "compliance")}
    if "GPU_AVAILABILITY" in split(query.get("include")):
        gpus = load_table("runpod_stock")["gpus"]
        levels = [(gpu, find_level(account, gpu, "SECURE", center["id"], 1)) for gpu in gpus]
        shown["gpuAvailability"] = [
            {"id": gpu["id"], "name": gpu["name"], "availability": word} for gpu, word in levels if word != "NONE"
        ]
    return shown


def list_countries(gpu: dict[str, Any]) -> list[str]:
    regions = {region for tier in gpu["stock"].values() for region in tier}
    return [center["country"] for center in load_table("runpod_stock")["dataCenters"] if center["id"] in regions]


def split(text: str | None) -> list[str]:
    return text.split(",") if text else []
