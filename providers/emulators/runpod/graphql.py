"""The small part of RunPod's GraphQL that still matters: end a pod from inside, server-side expiry, prices. POST /graphql."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from providers.emulators.call import Answer, Call, Refused
from providers.emulators.clock import from_rfc3339
from providers.emulators.runpod.account import RunPodAccount
from providers.emulators.runpod.graphql_text import find_operation, read_input
from providers.emulators.runpod.pod import Pod
from providers.emulators.runpod.pod_request import check_pod, place_pod
from providers.emulators.stock import level, load_table

_PUBLIC = ("gpuTypes",)
_STOCK_WORDS = {"NONE": None, "LOW": "Low", "MEDIUM": "Medium", "HIGH": "High"}


class GraphqlError(Exception):
    """Becomes status 200 with errors[]."""


def answer(account: RunPodAccount, call: Call) -> Answer:
    if call.method != "POST" or not isinstance(call.body, dict) or not isinstance(call.body.get("query"), str):
        return Answer(status=400, body={"errors": [{"message": "Must provide query string."}]})
    text: str = call.body["query"]
    operation = find_operation(text, tuple(OPERATIONS))
    if operation is None:
        field = re.search(r"\{\s*(\w+)", text)
        message = f'Cannot query field "{field[1] if field else ""}" on type "Query".'
        return Answer(status=400, body={"errors": [{"message": message}]})
    try:
        pod = check_key(account, call, operation)
        given = read_input(text, operation, call.body.get("variables") or {})
        return Answer(status=200, body={"data": {operation: OPERATIONS[operation](account, call, given, pod)}})
    except GraphqlError as error:
        call.detail = str(error)
        problem = {"message": str(error), "path": [operation], "extensions": {"code": "RUNPOD"}}
        return Answer(status=200, body={"errors": [problem], "data": {operation: None}})


def check_key(account: RunPodAccount, call: Call, operation: str) -> Pod | None:
    """The pod whose own key it is, None for the account's key or none needed."""
    key = call.request.headers.get("Authorization", "").removeprefix("Bearer ") or call.query.get("api_key", "")
    if key == account.settings.api_key and not account.faults.take("key_revoked", call.subject):
        call.key = "account"
        return None
    pod = account.pods.find_by_key(key) if key else None
    if pod is not None and account.faults.peek("pod_key_rights", pod.name) != "none":
        call.key = f"pod:{pod.id}"
        return pod
    if operation in _PUBLIC:
        return None
    call.key = "bad" if key else "none"
    raise GraphqlError("Unauthorized")


def terminate(account: RunPodAccount, call: Call, given: dict[str, Any], own: Pod | None) -> None:
    pod = find(account, given, own)
    if pod is None:
        raise GraphqlError("pod not found to terminate")
    call.machine = pod.id
    pod.was_touched = True
    account.pods.delete(pod)


def stop(account: RunPodAccount, call: Call, given: dict[str, Any], own: Pod | None) -> dict[str, Any]:
    pod = find(account, given, own)
    if pod is None:
        raise GraphqlError("pod not found")
    call.machine = pod.id
    account.pods.exit(pod)
    return {"id": pod.id, "desiredStatus": "EXITED"}


def show_pod(account: RunPodAccount, _call: Call, given: dict[str, Any], own: Pod | None) -> dict[str, Any] | None:
    pod = find(account, given, own)
    if pod is None:
        return None
    now = account.clock.now()
    ports = [
        {"ip": "127.0.0.1", "isIpPublic": True, "privatePort": inside, "publicPort": port.number, "type": "tcp"}
        for inside, port in pod.ports.items()
    ]
    runtime = {"uptimeInSeconds": int(now - (pod.started_at or now)), "ports": ports}
    return {
        "id": pod.id,
        "name": pod.name,
        "desiredStatus": "RUNNING" if pod.status in ("PROVISIONING", "STARTING") else pod.status,
        "costPerHr": pod.price_usd_per_hour,
        "runtime": runtime if pod.is_reachable(now) else None,
        "machineId": "s194cr8pls2z",
    }


def show_self(account: RunPodAccount, _call: Call, _given: dict[str, Any], own: Pod | None) -> dict[str, Any]:
    if own is not None:
        raise GraphqlError("Unauthorized")
    live = [pod for pod in account.pods.pods.values() if not pod.is_gone and not pod.is_foreign]
    spend = sum(pod.price_usd_per_hour for pod in live)
    pods = [{"id": pod.id, "name": pod.name} for pod in live]
    return {"id": "user_1", "clientBalance": 100.0, "currentSpendPerHr": spend, "pods": pods}


def show_gpu_types(
    account: RunPodAccount, _call: Call, given: dict[str, Any], _own: Pod | None
) -> list[dict[str, Any]]:
    count = int(given.get("gpuCount", 1))
    return [
        {
            "id": gpu["id"],
            "displayName": gpu["name"],
            "memoryInGb": gpu["memory"],
            "secureCloud": bool(gpu["price"]["secure"]),
            "communityCloud": bool(gpu["price"]["community"]),
            "securePrice": gpu["price"]["secure"],
            "communityPrice": gpu["price"]["community"],
            "maxGpuCount": gpu["maxCount"]["secure"],
            "lowestPrice": {
                "uninterruptablePrice": gpu["price"]["secure"] * count,
                "minimumBidPrice": round(gpu["price"]["secure"] / 2, 2),
                "stockStatus": _STOCK_WORDS[find_best_level(account, gpu["id"], count)],
            },
        }
        for gpu in load_table("runpod_stock")["gpus"]
    ]


def find_best_level(account: RunPodAccount, gpu_id: str, count: int) -> str:
    stock = account.pods.stock
    free = max((stock.free(gpu_id, "SECURE", region) for region in stock.regions(gpu_id, "SECURE")), default=0)
    return level(free, count)


def deploy(account: RunPodAccount, call: Call, given: dict[str, Any], _own: Pod | None) -> dict[str, Any]:
    """podFindAndDeployOnDemand: the fields that v2 has too, and terminateAfter, which it has not."""
    body = {
        "name": given.get("name") or "my pod",
        "image": given.get("imageName", ""),
        "args": given.get("dockerArgs") or "",
        "disk": int(given.get("containerDiskInGb") or 20),
        "ports": [part for part in (given.get("ports") or "").split(",") if part],
        "env": {pair["key"]: pair["value"] for pair in given.get("env") or []},
        "cloud": "COMMUNITY" if given.get("cloudType") == "COMMUNITY" else "SECURE",
        "gpu": {"id": given.get("gpuTypeId", ""), "count": int(given.get("gpuCount") or 1)},
    }
    if given.get("dataCenterId"):
        body["dataCenterIds"] = [given["dataCenterId"]]
    try:
        check_pod(account, body)
        place = place_pod(account, body)
    except Refused as refusal:
        raise GraphqlError(refusal.detail) from None
    pod = account.pods.create(
        body, region=place.region, price_usd_per_hour=place.price_usd_per_hour, request=call.number
    )
    call.machine = pod.id
    if given.get("terminateAfter"):
        pod.terminate_after = from_rfc3339(given["terminateAfter"])
        account.clock.call_at(pod.terminate_after, lambda: account.pods.delete(pod))
    return {"id": pod.id, "name": pod.name, "costPerHr": pod.price_usd_per_hour, "desiredStatus": "RUNNING"}


def find(account: RunPodAccount, given: dict[str, Any], own: Pod | None) -> Pod | None:
    pod = account.pods.find(str(given.get("podId", "")))
    if own is not None and pod is not own:
        raise GraphqlError("Unauthorized")
    return pod


OPERATIONS: dict[str, Callable[[RunPodAccount, Call, dict[str, Any], Pod | None], Any]] = {
    "podFindAndDeployOnDemand": deploy,
    "podTerminate": terminate,
    "podStop": stop,
    "myself": show_self,
    "gpuTypes": show_gpu_types,
    "pod": show_pod,
}
