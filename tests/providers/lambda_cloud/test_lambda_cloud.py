"""Lambda Cloud by its document: offers, launch, keys, look-up and end, without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from providers.cloud import Endpoint, KeyedCloud, Need, Offer
from providers.lambda_cloud.boot import derive_public_key
from providers.lambda_cloud.lambda_cloud import LAUNCH_INTERVAL_S, REQUEST_INTERVAL_S
from schemas.errors import (
    CloudError,
    CredentialError,
    LeaseholdError,
    NoCapacity,
    RateLimited,
    RequestRefused,
    RetiredApi,
    SpecError,
    UnclearOutcome,
)
from schemas.names import make_key_name
from tests.providers.fake_api import (
    EXPIRES_AT,
    HOST_KEYS,
    KEYS,
    LAMBDA_KEY,
    NAME,
    TOKEN,
    FakeApi,
    FakeClock,
    lambda_error,
    make_instance,
    make_lambda,
    make_lambda_api,
    make_request,
    make_type,
    reply,
)

KEY_NAME = make_key_name(token=TOKEN, expires_at=EXPIRES_AT)
LAUNCH = "POST /instance-operations/launch"
TERMINATE = "POST /instance-operations/terminate"
OUR_KEY = {"id": "k1", "name": KEY_NAME, "public_key": f"{KEYS.public} a comment"}
TYPES = {
    "data": {
        "gpu_1x_h100_sxm5": make_type("gpu_1x_h100_sxm5", "1x H100 (80 GB SXM5)", 429, 1, ["us-west-3", "us-east-1"]),
        "gpu_1x_h100_pcie": make_type("gpu_1x_h100_pcie", "1x H100 (80 GB PCIe)", 329, 1, []),
        "gpu_8x_h100_sxm5": make_type("gpu_8x_h100_sxm5", "8x H100 (80 GB SXM5)", 3192, 8, ["us-west-3"]),
        "gpu_1x_gh200": make_type("gpu_1x_gh200", "1x GH200 (96 GB)", 229, 1, ["us-east-3"]),
        "gpu_1x_a10": make_type("gpu_1x_a10", "1x A10 (24 GB PCIe)", 129, 1, ["us-east-1"]),
        "gpu_1x_a100_sxm4": make_type("gpu_1x_a100_sxm4", "1x A100 (40 GB SXM4)", 199, 1, ["us-east-1"]),
        "gpu_8x_a100_80gb_sxm4": make_type("gpu_8x_a100_80gb_sxm4", "8x A100 (80 GB SXM4)", 2232, 8, []),
        "gpu_1x_x900_new": make_type("gpu_1x_x900_new", "1x X900 (64 GB)", 500, 1, ["us-east-1"]),
        "cpu_4x_general": make_type("cpu_4x_general", "4x CPU", 20, 0, ["us-east-1"]),
    }
}
REGIONS = {
    "data": [{"name": name, "description": name} for name in ("us-west-3", "us-east-1", "us-east-3", "us-south-1")]
}


@pytest.fixture
def api() -> FakeApi:
    return (
        make_lambda_api()
        .on("GET /instance-types", reply(200, TYPES))
        .on("GET /regions", reply(200, REGIONS))
        .on("GET /ssh-keys", reply(200, {"data": [OUR_KEY]}))
    )


@pytest.fixture(autouse=True)
def _every_request_is_what_the_contract_says(api: FakeApi) -> Any:
    yield
    assert [each for each in api.problems if "page_token" not in each] == []


def describe(offers: Sequence[Offer]) -> list[tuple[str, str, float, bool]]:
    return [(offer.gpu_id, offer.region, offer.price_usd_per_hour, offer.available) for offer in offers]


def test_the_made_up_answers_are_what_the_contract_says(api: FakeApi) -> None:
    instance = make_instance()

    assert api.judge.judge_answer("get", "/api/v1/instance-types", 200, TYPES) == []
    assert api.judge.judge_answer("get", "/api/v1/instances", 200, {"data": [instance]}) == []


def test_offers_are_per_region_cheapest_first(api: FakeApi, tmp_path: Path) -> None:
    offers = make_lambda(api, tmp_path).offers(Need(gpu="H100"))

    assert describe(offers) == [
        ("gpu_1x_h100_pcie", "", 3.29, False),
        ("gpu_1x_h100_sxm5", "us-west-3", 4.29, True),
        ("gpu_1x_h100_sxm5", "us-east-1", 4.29, True),
    ]
    assert [(offer.gpu, offer.memory_gb, offer.cloud) for offer in offers][1] == ("H100-SXM", 80, "lambda")


def test_the_price_is_of_the_whole_machine(api: FakeApi, tmp_path: Path) -> None:
    (offer,) = make_lambda(api, tmp_path).offers(Need(gpu="H100-SXM", count=8))

    assert (offer.gpu_id, offer.count, offer.price_usd_per_hour) == ("gpu_8x_h100_sxm5", 8, 31.92)


@pytest.mark.parametrize(
    ("gpu", "types"),
    [
        ("H100-SXM", {"gpu_1x_h100_sxm5"}),
        ("NVIDIA H100", {"gpu_1x_h100_sxm5", "gpu_1x_h100_pcie"}),
        ("NVIDIA H100 80GB HBM3", {"gpu_1x_h100_sxm5"}),
        ("A100-40GB", {"gpu_1x_a100_sxm4"}),
        ("A100", {"gpu_1x_a100_sxm4"}),
        ("A10", {"gpu_1x_a10"}),
        ("gpu_1x_a10", {"gpu_1x_a10"}),
        ("gpu_1x_x900_new", {"gpu_1x_x900_new"}),
        ("gpu_8x_h100_sxm5", {"gpu_8x_h100_sxm5"}),
    ],
)
def test_a_name_finds_its_types(api: FakeApi, tmp_path: Path, gpu: str, types: set[str]) -> None:
    assert {offer.gpu_id for offer in make_lambda(api, tmp_path).offers(Need(gpu=gpu))} == types


def test_the_80_gb_model_is_not_taken_for_the_40_gb_one(api: FakeApi, tmp_path: Path) -> None:
    offers = make_lambda(api, tmp_path).offers(Need(gpu="A100-80G", count=8))

    assert describe(offers) == [("gpu_8x_a100_80gb_sxm4", "", 22.32, False)]


def test_arm64_is_offered_only_when_it_is_named(api: FakeApi, tmp_path: Path) -> None:
    cloud = make_lambda(api, tmp_path)

    (offer,) = cloud.offers(Need(gpu="GH200"))
    assert offer.architecture == "arm64"
    assert {offer.gpu_id for offer in cloud.offers(Need(min_gb=48))} == {
        "gpu_1x_h100_sxm5",
        "gpu_1x_h100_pcie",
        "gpu_1x_x900_new",
    }


def test_the_architecture_field_of_newer_answers_counts(api: FakeApi, tmp_path: Path) -> None:
    entry = make_type("gpu_1x_z1", "1x Z1 (64 GB)", 100, 1, ["us-east-1"])
    entry["instance_type"]["architecture"] = "arm64"
    api.on("GET /instance-types", reply(200, {"data": {"gpu_1x_z1": entry}}))

    assert make_lambda(api, tmp_path).offers(Need(min_gb=1)) == []
    assert make_lambda(api, tmp_path).offers(Need(gpu="gpu_1x_z1"))[0].architecture == "arm64"


def test_regions_are_the_jobs_then_the_environments(api: FakeApi, tmp_path: Path) -> None:
    cloud = make_lambda(api, tmp_path, lambda_region="us-east-1")

    assert describe(cloud.offers(Need(gpu="H100-SXM"))) == [("gpu_1x_h100_sxm5", "us-east-1", 4.29, True)]
    assert describe(cloud.offers(Need(gpu="H100-SXM", regions=("us-south-1", "us-west-3")))) == [
        ("gpu_1x_h100_sxm5", "us-west-3", 4.29, True),
        ("gpu_1x_h100_sxm5", "us-south-1", 4.29, False),
    ]


@pytest.mark.parametrize(
    ("need", "where", "words"),
    [
        (Need(gpu="H1000"), "", "H100"),
        (Need(gpu="L40S"), "gpu", "Nearest"),
        (Need(gpu="gpu_1x_h100_sxm6"), "gpu", "gpu_1x_h100_sxm5"),
        (Need(gpu="H100-SXM", count=3), "count", "1, 8"),
        (Need(gpu="gpu_8x_h100_sxm5", count=4), "count", "count 8"),
        (Need(gpu="H100", tier="community"), "tier", "Leave out"),
        (Need(gpu="H100", regions=("us-wset-3",)), "regions", "us-west-3"),
    ],
)
def test_what_lambda_can_never_give_is_refused_with_what_it_can(
    api: FakeApi, tmp_path: Path, need: Need, where: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        make_lambda(api, tmp_path).offers(need)
    assert caught.value.where == where
    assert words in str(caught.value)


def test_a_service_that_cannot_list_regions_is_believed(api: FakeApi, tmp_path: Path) -> None:
    api.on("GET /regions", lambda_error(404, "global/not-found"))

    offers = make_lambda(api, tmp_path).offers(Need(gpu="H100-SXM", regions=("us-new-9",)))
    assert describe(offers) == [("gpu_1x_h100_sxm5", "us-new-9", 4.29, False)]


def test_a_launch_holds_everything_that_was_decided_and_the_contract_allows(api: FakeApi, tmp_path: Path) -> None:
    api.on(LAUNCH, reply(200, {"data": {"instance_ids": ["i1"]}}))
    request = make_request("lambda", settings={"file_system": "models", "image_family": "lambda-stack-24-04"})

    assert make_lambda(api, tmp_path).launch(request) == "i1"

    (body,) = api.sent(LAUNCH)
    assert (body["region_name"], body["instance_type_name"]) == ("us-west-3", "gpu_1x_h100_sxm5")
    assert body["ssh_key_names"] == [KEY_NAME]
    assert body["name"] == body["hostname"] == NAME
    assert body["tags"] == [
        {"key": "leasehold-name", "value": NAME},
        {"key": "leasehold-expires-at", "value": str(EXPIRES_AT)},
    ]
    assert body["file_system_names"] == ["models"]
    assert body["image"] == {"family": "lambda-stack-24-04"}
    assert LAMBDA_KEY not in json.dumps(body)


def test_cloud_init_pins_the_host_key_and_lets_our_client_key_in(api: FakeApi, tmp_path: Path) -> None:
    api.on(LAUNCH, reply(200, {"data": {"instance_ids": ["i1"]}}))
    make_lambda(api, tmp_path).launch(make_request("lambda"))

    text = api.sent(LAUNCH)[0]["user_data"]
    config = YAML(typ="safe", pure=True).load(text)

    assert text.startswith("#cloud-config\n")
    assert config["ssh_keys"]["ed25519_private"] == HOST_KEYS.private
    assert config["ssh_keys"]["ed25519_public"] == HOST_KEYS.public == derive_public_key(HOST_KEYS.private)
    assert config["ssh_authorized_keys"] == [KEYS.public]


def test_the_jobs_key_is_registered_when_it_is_missing(api: FakeApi, tmp_path: Path) -> None:
    api.on("GET /ssh-keys", reply(200, {"data": [{"id": "x", "name": "someone", "public_key": "ssh-rsa AAAA"}]}))
    api.on("POST /ssh-keys", reply(200, {"data": OUR_KEY}))
    api.on(LAUNCH, reply(200, {"data": {"instance_ids": ["i1"]}}))
    clock = FakeClock()
    cloud = make_lambda(api, tmp_path, clock)

    cloud.launch(make_request("lambda"))
    clock.sleep(LAUNCH_INTERVAL_S)
    cloud.launch(make_request("lambda"))

    assert api.sent("POST /ssh-keys") == [{"name": KEY_NAME, "public_key": KEYS.public}]
    assert [body["ssh_key_names"] for body in api.sent(LAUNCH)] == [[KEY_NAME], [KEY_NAME]]


def test_the_same_key_under_another_name_is_used_as_it_stands(api: FakeApi, tmp_path: Path) -> None:
    api.on("GET /ssh-keys", reply(200, {"data": [OUR_KEY | {"name": "elsewhere"}]}))
    api.on(LAUNCH, reply(200, {"data": {"instance_ids": ["i1"]}}))

    make_lambda(api, tmp_path).launch(make_request("lambda"))

    assert api.sent(LAUNCH)[0]["ssh_key_names"] == ["elsewhere"]


def test_a_key_of_the_account_is_used_when_one_is_named(api: FakeApi, tmp_path: Path) -> None:
    api.on(LAUNCH, reply(200, {"data": {"instance_ids": ["i1"]}}))
    cloud = make_lambda(api, tmp_path, lambda_ssh_keys=("mine", "other"))

    cloud.register_key(KEY_NAME, KEYS.public)
    cloud.launch(make_request("lambda"))

    assert api.sent(LAUNCH)[0]["ssh_key_names"] == ["mine"]
    assert len(api.requests) == 1


def test_registering_a_key_twice_or_with_a_lost_answer_ends_well(api: FakeApi, tmp_path: Path) -> None:
    none: dict[str, Any] = {"data": []}
    ours = {"data": [OUR_KEY]}
    for answer in (lambda_error(400, "global/invalid-parameters", "name must be unique"), httpx.ReadTimeout("slow")):
        api.counts.clear()
        api.on("GET /ssh-keys", reply(200, none), reply(200, ours)).on("POST /ssh-keys", answer)
        make_lambda(api, tmp_path).register_key(KEY_NAME, KEYS.public)
        assert api.counts["POST /ssh-keys"] == 1


def test_a_name_taken_by_another_key_or_a_key_that_never_came_is_an_error(api: FakeApi, tmp_path: Path) -> None:
    other = {"data": [OUR_KEY | {"public_key": "ssh-ed25519 AAAAother"}]}
    api.on("GET /ssh-keys", reply(200, other))
    for answer, error in (
        (lambda_error(400, "global/invalid-parameters", "name must be unique"), RequestRefused),
        (httpx.ReadTimeout("slow"), CloudError),
    ):
        api.on("POST /ssh-keys", answer)
        with pytest.raises(error) as caught:
            make_lambda(api, tmp_path).register_key(KEY_NAME, KEYS.public)
        assert not isinstance(caught.value, UnclearOutcome)


def test_keys_are_listed_by_prefix_and_removed_by_name(api: FakeApi, tmp_path: Path) -> None:
    rows = [OUR_KEY, OUR_KEY | {"id": "k2"}, {"id": "k3", "name": "mine", "public_key": "ssh-rsa A"}, {"name": 7}]
    api.on("GET /ssh-keys", reply(200, {"data": rows}))
    api.on("DELETE /ssh-keys/k1", reply(200, {"data": {}})).on(
        "DELETE /ssh-keys/k2", lambda_error(404, "global/not-found")
    )
    cloud = make_lambda(api, tmp_path)

    assert cloud.list_keys("lh-") == [KEY_NAME, KEY_NAME]
    cloud.remove_key(KEY_NAME)
    cloud.remove_key("lh-gone")
    assert [request.url.path for request in api.requests if request.method == "DELETE"] == [
        "/api/v1/ssh-keys/k1",
        "/api/v1/ssh-keys/k2",
    ]
    assert isinstance(cloud, KeyedCloud)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda_error(400, "instance-operations/launch/insufficient-capacity"), NoCapacity, "insufficient-capacity"),
        (lambda_error(400, "global/invalid-parameters", "Region us-west-3 is unavailable."), NoCapacity, "us-west-3"),
        (lambda_error(400, "global/invalid-parameters", "Invalid request data."), RequestRefused, "Invalid request"),
        (lambda_error(400, "global/quota-exceeded"), RequestRefused, "quota"),
        (lambda_error(400, "global/object-does-not-exist", "SSH key x"), RequestRefused, "LAMBDA_CLOUD_SSH_KEYS"),
        (lambda_error(404, "global/object-does-not-exist", "File system x"), RequestRefused, "file_system"),
        (lambda_error(400, "instance-operations/launch/file-system-in-wrong-region"), RequestRefused, "wrong-region"),
        (lambda_error(403, "global/account-inactive"), CredentialError, "account-inactive"),
        (lambda_error(403, "global/invalid-address"), CredentialError, "LAMBDA_CLOUD_API_KEY"),
        (lambda_error(401, "global/invalid-api-key"), CredentialError, "LAMBDA_CLOUD_API_KEY"),
        (httpx.Response(403, content=b"<html>blocked"), CloudError, "network edge"),
        (lambda_error(400, "provider/internal-unavailable"), UnclearOutcome, "provider/"),
        (lambda_error(409, "global/internal-error"), UnclearOutcome, "internal-error"),
        (lambda_error(503, "provider/internal-unavailable"), UnclearOutcome, "HTTP 503"),
        (lambda_error(500, "instance-operations/launch/insufficient-capacity"), UnclearOutcome, "HTTP 500"),
        (reply(200, {"data": {"instance_ids": []}}), UnclearOutcome, "id"),
        (reply(200, {"data": None}), UnclearOutcome, "instance_ids"),
        (httpx.Response(200, content=b"<html>"), UnclearOutcome, "instance_ids"),
        (httpx.RemoteProtocolError("cut"), UnclearOutcome, "RemoteProtocolError"),
        (reply(410), RetiredApi, "LAMBDA_CLOUD_BASE_URL"),
        (reply(301, location="https://elsewhere.test"), CloudError, "LAMBDA_CLOUD_BASE_URL"),
    ],
)
def test_a_launch_that_fails_says_how_and_is_sent_once(
    api: FakeApi, tmp_path: Path, answer: Any, error: type[LeaseholdError], words: str
) -> None:
    api.on(LAUNCH, answer)

    with pytest.raises(error) as caught:
        make_lambda(api, tmp_path).launch(make_request("lambda"))
    assert words in str(caught.value)
    assert api.counts[LAUNCH] == 1
    assert LAMBDA_KEY not in str(caught.value) and "OPENSSH" not in str(caught.value)


def test_an_offer_without_a_region_is_no_capacity_and_sends_nothing(api: FakeApi, tmp_path: Path) -> None:
    sold_out = make_lambda(api, tmp_path).offers(Need(gpu="H100-PCIE"))[0]

    with pytest.raises(NoCapacity):
        make_lambda(api, tmp_path).launch(make_request("lambda", offer=sold_out))
    assert api.counts[LAUNCH] == 0


def test_launches_are_more_than_twelve_seconds_apart_and_the_second_is_told_to_come_back(
    api: FakeApi, tmp_path: Path
) -> None:
    api.on(LAUNCH, reply(200, {"data": {"instance_ids": ["i1"]}}))
    clock = FakeClock()
    make_lambda(api, tmp_path, clock).launch(make_request("lambda"))

    other_process = make_lambda(api, tmp_path, clock)
    with pytest.raises(RateLimited) as caught:
        other_process.launch(make_request("lambda"))
    assert 11 < caught.value.retry_after_s <= LAUNCH_INTERVAL_S
    assert api.counts[LAUNCH] == 1
    clock.sleep(caught.value.retry_after_s)
    assert other_process.launch(make_request("lambda")) == "i1"


def test_a_launch_that_could_not_be_sent_says_so_and_not_that_it_must_wait(api: FakeApi, tmp_path: Path) -> None:
    api.on(LAUNCH, httpx.ConnectError("no route"))

    with pytest.raises(CloudError, match="no route") as caught:
        make_lambda(api, tmp_path).launch(make_request("lambda"))
    assert not isinstance(caught.value, RateLimited | UnclearOutcome)


def test_requests_are_a_good_second_apart(api: FakeApi, tmp_path: Path) -> None:
    clock = FakeClock()
    api.on("GET /instances", reply(200, {"data": []}))
    cloud = make_lambda(api, tmp_path, clock)

    for _ in range(4):
        cloud.find(NAME)
    assert clock.slept == [pytest.approx(REQUEST_INTERVAL_S)] * 3


@pytest.mark.parametrize(
    ("url", "slept"), [("http://127.0.0.1:1/api/v1", 0.055), ("https://cloud.example.test/api/v1", 1.1)]
)
def test_the_emulators_pace_counts_only_on_this_computer(api: FakeApi, tmp_path: Path, url: str, slept: float) -> None:
    clock = FakeClock()
    api.on("GET /instances", reply(200, {"data": []}))
    cloud = make_lambda(api, tmp_path, clock, lambda_base_url=url, emulator_pace=20.0)

    cloud.find(NAME)
    cloud.find(NAME)
    assert clock.slept == [pytest.approx(slept, rel=1e-3)]


@pytest.mark.parametrize("body", [b"", b"<html>banned you temporarily", b'{"error":{"code":"global/rate-limited"}}'])
def test_a_429_of_any_shape_is_survived(api: FakeApi, tmp_path: Path, body: bytes) -> None:
    clock = FakeClock()
    api.on("GET /instances", httpx.Response(429, content=body), reply(200, {"data": [make_instance()]}))

    assert make_lambda(api, tmp_path, clock).find(NAME) is not None
    assert sum(clock.slept) == pytest.approx(LAUNCH_INTERVAL_S)


@pytest.mark.parametrize(
    ("fields", "phase", "has_endpoint"),
    [
        ({"status": "booting", "ip": None}, "starting", False),
        ({"status": "booting"}, "starting", True),
        ({"status": "active"}, "ready", True),
        ({"status": "active", "ip": ""}, "starting", False),
        ({"status": "active", "ip": "not an address"}, "starting", False),
        ({"status": "unhealthy"}, "starting", True),
        ({"status": "terminating"}, "ending", False),
        ({"status": "hibernating"}, "starting", True),
        ({"status": None}, "starting", True),
    ],
)
def test_an_instance_is_ready_when_it_is_active_and_has_an_address(
    api: FakeApi, tmp_path: Path, fields: dict[str, Any], phase: str, has_endpoint: bool
) -> None:
    api.on("GET /instances", reply(200, {"data": [make_instance(**fields)]}))

    state = make_lambda(api, tmp_path).find(NAME)

    assert state is not None and state.phase == phase
    assert (state.endpoint is not None) is has_endpoint


def test_an_instance_of_others_that_is_called_like_an_id_of_ours_is_not_ours(api: FakeApi, tmp_path: Path) -> None:
    foreign = make_instance(id="theirs", name="0920582c7ff041399e34823a0be62549", tags=[])
    api.on("GET /instances", reply(200, {"data": [foreign]}))

    assert make_lambda(api, tmp_path).find("0920582c7ff041399e34823a0be62549") is None


def test_an_instance_is_described_whole(api: FakeApi, tmp_path: Path) -> None:
    api.on("GET /instances", reply(200, {"data": [make_instance()]}))

    state = make_lambda(api, tmp_path).find("0920582c7ff041399e34823a0be62549")

    assert state is not None
    assert state.endpoint == Endpoint(host="198.51.100.2", port=22, user="ubuntu")
    assert (state.price_usd_per_hour, state.region, state.created_at) == (4.29, "us-west-3", 0.0)


@pytest.mark.parametrize(
    ("url", "port"), [("http://127.0.0.1:1/api/v1", 40022), ("https://cloud.example.test/api/v1", 22)]
)
def test_another_ssh_port_is_believed_only_on_this_computer(api: FakeApi, tmp_path: Path, url: str, port: int) -> None:
    api.on("GET /instances", reply(200, {"data": [make_instance(ip="127.0.0.1", ssh_port=40022)]}))

    state = make_lambda(api, tmp_path, lambda_base_url=url).find(NAME)

    assert state is not None and state.endpoint is not None and state.endpoint.port == port


def test_unhealthy_may_pass_but_not_last(api: FakeApi, tmp_path: Path) -> None:
    clock = FakeClock()
    sick, well = reply(200, {"data": [make_instance(status="unhealthy")]}), reply(200, {"data": [make_instance()]})
    api.on("GET /instances", sick, well, sick, sick)
    cloud = make_lambda(api, tmp_path, clock)
    phases = []
    for wait_s in (170, 170, 170, 170):
        state = cloud.find(NAME)
        phases.append(state.phase if state is not None else "gone")
        clock.sleep(wait_s)
    state = cloud.find(NAME)

    assert phases == ["starting", "ready", "starting", "starting"]
    assert state is not None and state.phase == "failed" and "unhealthy" in state.detail


def test_the_tag_says_whose_an_instance_is_even_when_it_was_renamed(api: FakeApi, tmp_path: Path) -> None:
    rows = [
        make_instance(id="a", name="renamed"),
        make_instance(id="b", tags=[], name=NAME),
        make_instance(id="c", name="x", tags=None),
    ]
    api.on("GET /instances", reply(200, {"data": rows}))

    assert [state.id for state in make_lambda(api, tmp_path).list_ours("lh-")] == ["a", "b"]


@pytest.mark.parametrize("status", ["terminated", "preempted"])
def test_what_is_terminated_or_preempted_is_gone(api: FakeApi, tmp_path: Path, status: str) -> None:
    api.on("GET /instances", reply(200, {"data": [make_instance(status=status)]}))
    cloud = make_lambda(api, tmp_path)

    assert cloud.find(NAME) is None
    assert cloud.list_ours("lh-") == []


def test_pages_are_followed_should_they_ever_come(api: FakeApi, tmp_path: Path) -> None:
    pages = {
        "": {"data": [make_instance(id="a")], "page_token": "t"},
        "t": {"data": [make_instance(id="b")], "page_token": None},
    }
    api.on("GET /instances", lambda request: reply(200, pages[request.url.params.get("page_token", "")]))

    assert [state.id for state in make_lambda(api, tmp_path).list_ours("lh-")] == ["a", "b"]
    api.on("GET /instances", reply(200, {"data": [], "page_token": "t"}))
    with pytest.raises(CloudError, match="does not end"):
        make_lambda(api, tmp_path).list_ours("lh-")


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"{}", b'{"data": null}', b'{"data": [7]}', b'{"data": [{"name": "lh-x"}]}']
)
def test_a_list_that_cannot_be_read_whole_is_never_an_empty_one(api: FakeApi, tmp_path: Path, body: bytes) -> None:
    api.on("GET /instances", httpx.Response(200, content=body))

    with pytest.raises(CloudError):
        make_lambda(api, tmp_path).list_ours("lh-")
    assert len(api.requests) == 4


@pytest.mark.parametrize(
    "answers",
    [
        [reply(200, {"data": {"terminated_instances": []}})],
        [lambda_error(404, "global/object-does-not-exist")],
        [lambda_error(400, "global/object-does-not-exist")],
        [reply(500), lambda_error(404, "global/not-found")],
        [httpx.ReadTimeout("slow"), httpx.Response(200, content=b"<html>")],
    ],
)
def test_terminating_takes_gone_as_success_and_one_id_a_call(api: FakeApi, tmp_path: Path, answers: list[Any]) -> None:
    api.on(TERMINATE, *answers)

    make_lambda(api, tmp_path).terminate("i1")

    assert api.sent(TERMINATE) == [{"instance_ids": ["i1"]}] * len(answers)


def test_terminating_that_does_not_work_is_an_error(api: FakeApi, tmp_path: Path) -> None:
    for answer, error in (
        (lambda_error(400, "global/invalid-parameters"), RequestRefused),
        (lambda_error(401, "global/invalid-api-key"), CredentialError),
        (reply(500), CloudError),
    ):
        api.on(TERMINATE, answer)
        with pytest.raises(error):
            make_lambda(api, tmp_path).terminate("i1")


def test_lambda_has_no_log(api: FakeApi, tmp_path: Path) -> None:
    assert make_lambda(api, tmp_path).logs("i1") == ""


def test_a_missing_key_shows_at_the_first_use(api: FakeApi, tmp_path: Path) -> None:
    cloud = make_lambda(api, tmp_path, lambda_api_key=None)

    with pytest.raises(CredentialError, match="LAMBDA_CLOUD_API_KEY"):
        cloud.offers(Need())


def test_a_file_system_that_cannot_be_named_is_refused_before_anything_is_launched(
    api: FakeApi, tmp_path: Path
) -> None:
    with pytest.raises(SpecError):
        make_lambda(api, tmp_path).launch(make_request("lambda", settings={"file_system": "1 bad"}))
    assert api.counts[LAUNCH] == 0
