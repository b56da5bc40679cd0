"""A property of both clouds: whatever comes back, the caller gets a value or one of our errors, and no second create."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.cloud import MachineState, Need, Offer
from providers.lambda_cloud.lambda_cloud import LambdaCloud
from providers.runpod.runpod import RunPod
from schemas.errors import CloudError, CredentialError, LeaseholdError, NoCapacity, SpecError
from tests.providers.fake_api import (
    KEYS,
    LAMBDA_KEY,
    NAME,
    READY_SSH,
    RUNPOD_KEY,
    FakeClock,
    make_instance,
    make_page,
    make_pod,
    make_request,
    make_settings,
)
from tests.providers.lambda_cloud.test_lambda_cloud import OUR_KEY, REGIONS, TYPES
from tests.providers.runpod.test_runpod import CATALOG, PLACES

ROUNDS = 520
STATUSES = [200, 201, 202, 204, 206, 301, 304, 400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 418, 422, 429, 451]
STATUSES += [500, 501, 502, 503, 504, 520, 524, 599]
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 10**30, 1e308, -0.5, "", " ", "0", "\ud800", "\x00\x1b[31m", "a" * 5000, "../..", "\u202e",
    [], {}, [[]], [None], {"a": None}, {"": {}}, "9" * 5000, "2026-99-99T00:00:00Z", "9999-12-31T23:59:59-23:59",
]  # fmt: skip
RUNPOD_ANSWERS: dict[str, Any] = {
    "/catalog/gpus": CATALOG,
    "/catalog/datacenters": PLACES,
    "/pods": make_page(make_pod(ssh=READY_SSH), make_pod(id="b", name="other"), cursor=""),
    "/pods/7h9k2m4n6p": make_pod(ssh=READY_SSH),
    "/billing/pods": {"records": [{"podId": "7h9k2m4n6p", "totalAmount": 1.5}], "metadata": {}},
    "POST /pods": make_pod(status="PROVISIONING"),
    "/pods/7h9k2m4n6p/logs": "data: {}",
}
LAMBDA_ANSWERS: dict[str, Any] = {
    "/instance-types": TYPES,
    "/regions": REGIONS,
    "/instances": {"data": [make_instance(), make_instance(id="b", name="other", tags=[])]},
    "/ssh-keys": {"data": [OUR_KEY]},
    "POST /ssh-keys": {"data": OUR_KEY},
    "/instance-operations/launch": {"data": {"instance_ids": ["i1"]}},
    "/instance-operations/terminate": {"data": {"terminated_instances": []}},
}


class Corrupter:
    """An API whose every answer is spoilt by chance."""

    def __init__(self, seed: int, answers: dict[str, Any]) -> None:
        self.random = random.Random(seed)
        self.answers = answers
        self.creates: list[tuple[httpx.Request, int]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v2").removeprefix("/api/v1")
        data = self.answers.get(f"{request.method} {path}", self.answers.get(path, {}))
        chance = self.random.random()
        is_create = path in ("/pods", "/instance-operations/launch") and request.method == "POST"
        if chance < 0.06:
            error = self.random.choice(
                [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.DecodingError]
            )
            if is_create:
                self.creates.append((request, 0))
            raise error("by chance")
        status = self.random.choice(STATUSES) if self.random.random() < 0.4 else 200
        if is_create:
            self.creates.append((request, status))
        return httpx.Response(status, headers=self.make_headers(), content=self.make_body(data))

    def make_body(self, data: Any) -> bytes:
        way = self.random.randrange(9)
        if way == 0:
            return self.random.choice(
                [b"", b"<html><body>502</body></html>", b"null", b"[]", b"7", b'"x"', b"[" * 100_000]
            )
        if way == 1:
            return bytes(self.random.randrange(256) for _ in range(self.random.randrange(200)))
        if way <= 6:
            data = self.spoil(json.loads(json.dumps(data)))
        text = json.dumps(data).encode()
        if way == 5:
            return text[: self.random.randrange(len(text) + 1)]
        if way == 6 and text:
            place = self.random.randrange(len(text))
            return text[:place] + bytes([self.random.randrange(256)]) + text[place + 1 :]
        return gzip.compress(text)[:50] if way == 7 and self.random.random() < 0.2 else text

    def spoil(self, data: Any) -> Any:
        """Put an odd value in one to four places, or take a field away."""
        for _ in range(self.random.randrange(1, 5)):
            parents = [node for node in walk(data) if isinstance(node, dict | list) and node]
            if not parents:
                return copy.deepcopy(self.random.choice(ODD_VALUES))
            parent = self.random.choice(parents)
            key = self.random.choice(list(parent) if isinstance(parent, dict) else list(range(len(parent))))
            if self.random.random() < 0.3:
                del parent[key]
            else:
                parent[key] = copy.deepcopy(self.random.choice(ODD_VALUES))
        return data

    def make_headers(self) -> dict[str, str]:
        odd = [
            "",
            "0",
            "3",
            "-1",
            "soon",
            "1e9",
            "9" * 40,
            "Fri, 99 Foo 2026",
            '"minute";r=0;t=1',
            '"x";r=0;t=' + "9" * 30,
        ]
        names = ["retry-after", "ratelimit", "x-request-id", "content-type", "content-encoding", "location"]
        encodings = ["gzip", "deflate", "identity", "br", "nonsense"]
        chosen = [name for name in names if self.random.random() < 0.2]
        return {name: self.random.choice(encodings if name == "content-encoding" else odd) for name in chosen}


def walk(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [node, *(each for child in children for each in walk(child))]


def is_state(value: Any) -> bool:
    return isinstance(value, MachineState) and bool(value.id) and value.price_usd_per_hour >= 0


def are_offers(value: Sequence[Any]) -> bool:
    return all(isinstance(offer, Offer) and offer.price_usd_per_hour > 0 and offer.count > 0 for offer in value)


Case = tuple[Callable[[Any], Any], Callable[[Any], bool]]
COMMON: list[Case] = [
    (lambda cloud: cloud.offers(Need()), are_offers),
    (lambda cloud: cloud.offers(Need(gpu="H100")), are_offers),
    (lambda cloud: cloud.find(NAME), lambda value: value is None or is_state(value)),
    (lambda cloud: cloud.find("7h9k2m4n6p"), lambda value: value is None or is_state(value)),
    (lambda cloud: list(cloud.list_ours("lh-")), lambda value: all(map(is_state, value))),
    (lambda cloud: cloud.terminate("7h9k2m4n6p"), lambda value: value is None),
    (lambda cloud: cloud.logs("7h9k2m4n6p"), lambda value: isinstance(value, str)),
]
RUNPOD_CASES: list[Case] = [
    *COMMON,
    (lambda cloud: cloud.launch(make_request("runpod")), lambda value: isinstance(value, str) and bool(value)),
    (lambda cloud: cloud.launch(make_request("runpod")), lambda value: isinstance(value, str) and bool(value)),
    (
        lambda cloud: cloud.billed_usd("7h9k2m4n6p", start=1.7e9, end=1.8e9),
        lambda value: value is None or value == value,
    ),
    (lambda cloud: list(cloud.offers(Need(gpu="H100", regions=("US-XX-1",)))), are_offers),
]
LAMBDA_CASES: list[Case] = [
    *COMMON,
    (lambda cloud: cloud.launch(make_request("lambda")), lambda value: isinstance(value, str) and bool(value)),
    (lambda cloud: cloud.launch(make_request("lambda")), lambda value: isinstance(value, str) and bool(value)),
    (lambda cloud: cloud.register_key("lh-abcdefghijkl-key-aaaaaa", KEYS.public), lambda value: value is None),
    (lambda cloud: list(cloud.list_keys("lh-")), lambda value: all(isinstance(name, str) for name in value)),
    (lambda cloud: cloud.remove_key(OUR_KEY["name"]), lambda value: value is None),
    (lambda cloud: list(cloud.offers(Need(gpu="A10", regions=("us-xx-1",)))), are_offers),
]


@pytest.mark.parametrize(
    ("make", "answers", "cases", "keys"),
    [(RunPod, RUNPOD_ANSWERS, RUNPOD_CASES, RUNPOD_KEY), (LambdaCloud, LAMBDA_ANSWERS, LAMBDA_CASES, LAMBDA_KEY)],
    ids=["runpod", "lambda"],
)
def test_a_corrupted_answer_gives_a_value_or_our_error_and_never_a_second_create(
    tmp_path: Path, make: Callable[..., Any], answers: dict[str, Any], cases: list[Case], keys: str
) -> None:
    outcomes: dict[str, int] = {}
    for seed in range(ROUNDS):
        corrupter = Corrupter(seed, answers)
        cloud = make(make_settings(tmp_path / str(seed)), clock=FakeClock(), transport=httpx.MockTransport(corrupter))
        act, is_valid = cases[seed % len(cases)]
        try:
            value = act(cloud)
        except (CloudError, CredentialError, NoCapacity, SpecError) as error:
            assert type(error) is not LeaseholdError
            assert keys not in f"{error} {vars(error)}", seed
            str(error).encode("utf-8")
            name = type(error).__name__
        else:
            assert is_valid(value), (seed, value)
            name = "value"
        outcomes[name] = outcomes.get(name, 0) + 1
        assert_no_blind_create(corrupter, seed)
    assert outcomes["value"] > ROUNDS / 10
    assert {"UnclearOutcome", "CloudError", "CredentialError", "RequestRefused"} <= set(outcomes)


def assert_no_blind_create(corrupter: Corrupter, seed: int) -> None:
    """A create may follow only one that certainly made nothing: a 429, or the 422 that leads to the older body."""
    for _, status in corrupter.creates[:-1]:
        assert status in (422, 429), (seed, [status for _, status in corrupter.creates])
    assert sum(status == 422 for _, status in corrupter.creates) <= 2, seed
