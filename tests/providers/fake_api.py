"""A cloud's API that answers by a script, over httpx.MockTransport, with a clock that only sleeping moves."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from providers.cloud import LaunchRequest, Offer
from providers.http.secret import Secret
from providers.keys import make_key_pair
from providers.lambda_cloud.lambda_cloud import LambdaCloud
from providers.runpod.runpod import RunPod
from providers.settings import CloudSettings
from schemas.names import make_machine_name
from tests.providers.openapi_judge import LAMBDA, RUNPOD, load_judge

RUNPOD_KEY = "rpa_SECRETSECRETSECRET"
LAMBDA_KEY = "secret_lambda_SECRETSECRET"
TOKEN = "abcdefghijkl"
EXPIRES_AT = 1_795_000_000
NAME = make_machine_name(token=TOKEN, index=0, attempt=0, expires_at=EXPIRES_AT)
KEYS = make_key_pair()
HOST_KEYS = make_key_pair()

Answer = httpx.Response | Exception
Script = Callable[[httpx.Request], Answer]


class FakeClock:
    """Starts at a round moment; sleeping is instant and remembered."""

    def __init__(self) -> None:
        self.moment = 1_790_000_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.moment

    def monotonic(self) -> float:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.moment += seconds


class FakeApi:
    """Answers by `METHOD /path`: a list is used up one by one, its last answer stays. Every request is judged and kept."""

    def __init__(self, document: str, base_path: str) -> None:
        self.judge = load_judge(document, base_path)
        self.base_path = base_path
        self.requests: list[httpx.Request] = []
        self.problems: list[str] = []
        self.scripts: dict[str, list[Answer | Script]] = {}
        self.counts: defaultdict[str, int] = defaultdict(int)

    def on(self, route: str, *answers: Answer | Script) -> FakeApi:
        self.scripts[route] = list(answers)
        return self

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        self.problems += [f"{request.method} {request.url}: {each}" for each in self.judge.find_problems(request)]
        route = f"{request.method} {request.url.path.removeprefix(self.base_path)}"
        if route not in self.scripts:
            raise AssertionError(f"nobody expected {route}")
        script = self.scripts[route]
        answer = script[min(self.counts[route], len(script) - 1)]
        self.counts[route] += 1
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def sent(self, route: str) -> list[Any]:
        """The bodies sent to a route, None for requests without one."""
        method, path = route.split()
        return [
            json.loads(request.content) if request.content else None
            for request in self.requests
            if request.method == method and request.url.path == self.base_path + path
        ]

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)


def make_runpod_api() -> FakeApi:
    return FakeApi(RUNPOD, "/v2")


def make_lambda_api() -> FakeApi:
    return FakeApi(LAMBDA, "/api/v1")


def make_settings(tmp_path: Path, **fields: Any) -> CloudSettings:
    values: dict[str, Any] = {
        "runpod_api_key": Secret(RUNPOD_KEY),
        "lambda_api_key": Secret(LAMBDA_KEY),
        "state_dir": tmp_path / "state",
    }
    return CloudSettings(**(values | fields))


def make_runpod(api: FakeApi, tmp_path: Path, clock: FakeClock | None = None, **fields: Any) -> RunPod:
    settings = make_settings(tmp_path, **fields)
    return RunPod(settings, clock=clock or FakeClock(), transport=api.transport, log_idle_s=0.1)


def make_lambda(api: FakeApi, tmp_path: Path, clock: FakeClock | None = None, **fields: Any) -> LambdaCloud:
    return LambdaCloud(make_settings(tmp_path, **fields), clock=clock or FakeClock(), transport=api.transport)


def reply(status: int, data: Any = None, **headers: str) -> httpx.Response:
    content = b"" if data is None else json.dumps(data).encode()
    return httpx.Response(
        status, headers={name.replace("_", "-"): text for name, text in headers.items()}, content=content
    )


def problem(status: int, detail: str, errors: Sequence[str] = ()) -> httpx.Response:
    data: dict[str, Any] = {"title": "Refused", "status": status, "detail": detail}
    return reply(status, data | ({"errors": list(errors)} if errors else {}))


def lambda_error(status: int, code: str, message: str = "It is so.") -> httpx.Response:
    return reply(status, {"error": {"code": code, "message": message, "suggestion": "Do otherwise."}})


def make_request(cloud: str, **fields: Any) -> LaunchRequest:
    is_runpod = cloud == "runpod"
    offer = Offer(
        cloud=cloud,
        gpu="H100-SXM",
        gpu_id="NVIDIA H100 80GB HBM3" if is_runpod else "gpu_1x_h100_sxm5",
        count=1,
        memory_gb=80,
        tier="secure" if is_runpod else "",
        region="US-KS-2" if is_runpod else "us-west-3",
        price_usd_per_hour=2.99,
    )
    values: dict[str, Any] = {
        "name": NAME,
        "offer": offer,
        "public_key": KEYS.public,
        "host_private_key": HOST_KEYS.private,
        "expires_at": EXPIRES_AT,
    }
    return LaunchRequest(**(values | fields))


def make_pod(**fields: Any) -> dict[str, Any]:
    """A pod as the September document has it, running but not reachable yet."""
    pod: dict[str, Any] = {
        "id": "7h9k2m4n6p",
        "name": NAME,
        "status": "RUNNING",
        "actions": ["stop", "restart", "terminate"],
        "image": "vllm/vllm-openai:latest",
        "args": "",
        "disk": 100,
        "mounts": {},
        "ports": ["22/tcp"],
        "env": {},
        "registry": None,
        "gpu": {"id": "NVIDIA H100 80GB HBM3", "count": 1, "vcpuCount": 16, "memory": 125},
        "cloud": "SECURE",
        "dataCenterId": "US-KS-2",
        "cudaVersion": "12.8",
        "ssh": {"proxy": None, "direct": None},
        "template": None,
        "cost": 2.99,
        "locked": False,
        "runtime": None,
        "createdAt": "2026-11-23T09:00:00Z",
        "startedAt": None,
        "globalNetworking": {"enabled": False},
    }
    return pod | fields


READY_SSH = {
    "proxy": None,
    "direct": {"host": "203.0.113.17", "port": 10341, "username": "root", "command": "ssh root@203.0.113.17 -p 10341"},
}


def make_page(*pods: dict[str, Any], cursor: str = "") -> dict[str, Any]:
    return {"pods": list(pods), "pagination": {"nextCursor": cursor or None, "hasNextPage": bool(cursor)}}


def make_type(name: str, description: str, cents: int, gpus: int, regions: Sequence[str]) -> dict[str, Any]:
    return {
        "instance_type": {
            "name": name,
            "description": description,
            "gpu_description": description.split("x ", 1)[1],
            "price_cents_per_hour": cents,
            "specs": {"vcpus": 26, "memory_gib": 225, "storage_gib": 2816, "gpus": gpus},
        },
        "regions_with_capacity_available": [{"name": region, "description": region} for region in regions],
    }


def make_instance(**fields: Any) -> dict[str, Any]:
    """An active instance, with fields that the document does not name."""
    action = {"available": True}
    instance: dict[str, Any] = {
        "id": "0920582c7ff041399e34823a0be62549",
        "name": NAME,
        "ip": "198.51.100.2",
        "status": "active",
        "ssh_key_names": ["k"],
        "file_system_names": [],
        "region": {"name": "us-west-3", "description": "Utah, USA"},
        "instance_type": make_type("gpu_1x_h100_sxm5", "1x H100 (80 GB SXM5)", 429, 1, [])["instance_type"],
        "actions": dict.fromkeys(("migrate", "rebuild", "restart", "cold_reboot", "terminate"), action),
        "tags": [{"key": "leasehold-name", "value": NAME}],
        "is_reserved": False,
    }
    return instance | fields
