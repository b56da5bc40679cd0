"""A pod as the RunPod API shows it. Pure; called by the routes."""

from __future__ import annotations

from typing import Any

from providers.emulators.clock import to_rfc3339
from providers.emulators.runpod.pod import ACTIONS, Pod, read_command, store_args
from providers.emulators.stock import load_table

HOST = "127.0.0.1"
# HTTP ports are shown with an address that nobody outside can reach.
_INNER_IP = "100.65.0.7"
_HOURLESS = ("EXITED", "TERMINATED")


def render_pod(pod: Pod, *, now: float, has_arrays: bool) -> dict[str, Any]:
    """has_arrays: the September form (command arrays, size of the host)."""
    config = pod.config
    view: dict[str, Any] = {
        "id": pod.id,
        "name": pod.name,
        "status": pod.status,
        "actions": list(ACTIONS[pod.status]),
        "image": config.get("image", ""),
        "args": store_args(config),
        "disk": config.get("disk", 0),
        "mounts": config.get("mounts", {}),
        "ports": config.get("ports", []),
        "env": config.get("env", {}),
        "registry": config.get("registry"),
        "cloud": pod.cloud,
        "dataCenterId": pod.region,
        "cudaVersion": find_gpu(pod.gpu_id).get("cudaVersion") or None if pod.gpu_id else None,
        "ssh": render_ssh(pod, now),
        "template": None,
        "cost": 0.0 if pod.status in _HOURLESS else pod.price_usd_per_hour,
        "locked": config.get("locked", False),
        "runtime": render_runtime(pod, now),
        "createdAt": to_rfc3339(pod.created_at),
        "startedAt": None if pod.started_at is None or pod.started_at > now else to_rfc3339(pod.started_at),
        "globalNetworking": {"enabled": bool(config.get("globalNetworking", False))},
    }
    if has_arrays:
        entrypoint, cmd = read_command(config)
        view |= {"entrypoint": entrypoint or [], "cmd": cmd or []}
    if pod.cluster is not None:
        view["cluster"] = pod.cluster
    return view | render_compute(pod, has_size=has_arrays)


def render_compute(pod: Pod, *, has_size: bool) -> dict[str, Any]:
    if pod.cpu is not None:
        return {"cpu": {**pod.cpu, "memory": int(pod.cpu["vcpuCount"]) * 4}}
    gpu: dict[str, Any] = {"id": pod.gpu_id, "count": pod.gpu_count}
    if has_size:
        kind = find_gpu(pod.gpu_id)
        gpu |= {
            "vcpuCount": float(kind.get("vcpusPerGpu", 8) * max(1, pod.gpu_count)),
            "memory": float(kind.get("ramPerGpu", 32) * max(1, pod.gpu_count)),
        }
    return {"gpu": gpu}


def render_ssh(pod: Pod, now: float) -> dict[str, Any]:
    if not pod.is_reachable(now):
        return {"proxy": None, "direct": None}
    user = f"{pod.id}-64411eb2"
    proxy = {"host": "ssh.runpod.io", "port": 22, "username": user, "command": f"ssh {user}@ssh.runpod.io"}
    port = pod.ports.get(22)
    if port is None:
        return {"proxy": proxy, "direct": None}
    command = f"ssh root@{HOST} -p {port.number}"
    return {
        "proxy": proxy,
        "direct": {"host": HOST, "port": port.number, "username": "root", "command": command},
    }


def render_runtime(pod: Pod, now: float) -> dict[str, Any] | None:
    if not pod.is_reachable(now):
        return None
    ports = [
        {"private": inside, "public": port.number, "type": "tcp", "ip": HOST} for inside, port in pod.ports.items()
    ]
    for inside in list_ports(pod.config, "http"):
        ports.append({"private": inside, "public": 60000 + inside % 5000, "type": "http", "ip": _INNER_IP})
    return {
        "uptime": int(now - (pod.started_at or now)),
        "gpus": [{"util": 0, "memoryUtil": 0} for _ in range(pod.gpu_count)],
        "cpu": {"util": 1},
        "memory": {"util": 2},
        "ports": ports,
    }


def list_ports(config: dict[str, Any], kind: str) -> list[int]:
    """Ports inside the pod that are published as `tcp` or `http`."""
    pairs = [text.partition("/") for text in config.get("ports", [])]
    return [int(number) for number, _, its_kind in pairs if its_kind == kind]


def find_gpu(gpu_id: str) -> dict[str, Any]:
    """The table's row of a GPU id, {} when there is none."""
    gpus: list[dict[str, Any]] = load_table("runpod_stock")["gpus"]
    return next((gpu for gpu in gpus if gpu["id"] == gpu_id), {})
