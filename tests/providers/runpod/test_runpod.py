"""RunPod by its documents: offers, create, look-up, end, logs and bill, without a network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.cloud import BillingCloud, Endpoint, Need, Offer
from providers.runpod.runpod import RunPod
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
from tests.providers.fake_api import (
    EXPIRES_AT,
    HOST_KEYS,
    KEYS,
    NAME,
    READY_SSH,
    RUNPOD_KEY,
    FakeApi,
    FakeClock,
    make_page,
    make_pod,
    make_request,
    make_runpod,
    make_runpod_api,
    problem,
    reply,
)
from tests.providers.openapi_judge import RUNPOD_AUGUST, load_judge

FULL = "There are no longer any instances available with the requested specifications. Please refresh and try again."


def make_gpu(id: str, name: str, memory: int, secure: float, community: float, **fields: Any) -> dict[str, Any]:
    gpu = {
        "id": id,
        "name": name,
        "pool": None,
        "manufacturer": "AMD" if id.startswith("AMD") else "NVIDIA",
        "memory": memory,
        "secure": secure > 0,
        "community": community > 0,
        "price": {"secure": secure, "community": community},
        "maxCount": {"secure": 8 if secure else 0, "community": 8 if community else 0},
        "availability": "NONE",
    }
    return gpu | fields


def make_place(id: str, availability: str) -> dict[str, str]:
    return {"id": id, "name": id, "availability": availability}


CATALOG = {
    "gpus": [
        make_gpu(
            "NVIDIA H100 80GB HBM3",
            "H100 SXM",
            80,
            2.99,
            2.69,
            availability="HIGH",
            dataCenters=[make_place("US-KS-2", "LOW"), make_place("EU-RO-1", "HIGH"), make_place("US-TX-3", "NONE")],
        ),
        make_gpu("NVIDIA H100 PCIe", "H100 PCIe", 80, 2.39, 1.99, availability="LOW"),
        make_gpu("NVIDIA B200", "B200", 180, 5.98, 0),
        make_gpu("NVIDIA L40S", "L40S", 48, 0.86, 0.79, availability="MEDIUM", maxCount={"secure": 4, "community": 2}),
        make_gpu("AMD Instinct MI300X OAM", "MI300X", 192, 2.49, 0, availability="HIGH"),
        make_gpu("NVIDIA RTX 9999", "RTX 9999", 64, 1.5, 0, availability="SCARCE", unheardOf={"x": 1}),
    ]
}
PLACES = {
    "dataCenters": [{"id": id, "name": id, "region": "EUROPE"} for id in ("US-KS-2", "EU-RO-1", "US-TX-3", "EU-SE-1")]
}


@pytest.fixture
def api() -> FakeApi:
    return (
        make_runpod_api()
        .on("GET /catalog/gpus", reply(200, CATALOG))
        .on("GET /catalog/datacenters", reply(200, PLACES))
    )


@pytest.fixture(autouse=True)
def _every_request_is_what_the_contract_says(api: FakeApi) -> Any:
    yield
    assert api.problems == []


def describe(offers: Sequence[Offer]) -> list[tuple[str, str, float, bool]]:
    return [(offer.gpu, offer.region, offer.price_usd_per_hour, offer.available) for offer in offers]


def test_offers_are_per_data_centre_cheapest_first_then_by_stock(api: FakeApi, tmp_path: Path) -> None:
    offers = make_runpod(api, tmp_path).offers(Need(gpu="H100", count=2))

    assert describe(offers) == [
        ("H100-PCIE", "", 4.78, True),
        ("H100-SXM", "EU-RO-1", 5.98, True),
        ("H100-SXM", "", 5.98, True),
        ("H100-SXM", "US-KS-2", 5.98, True),
    ]
    assert [offer.stock for offer in offers] == ["LOW", "HIGH", "HIGH", "LOW"]
    assert {(offer.tier, offer.cloud, offer.count, offer.memory_gb) for offer in offers} == {
        ("secure", "runpod", 2, 80)
    }
    assert dict(api.requests[0].url.params) == {
        "include": "AVAILABILITY",
        "product": "POD",
        "count": "2",
        "cloud": "SECURE",
    }


def test_the_made_up_catalog_is_what_the_contract_says(api: FakeApi) -> None:
    known = {"gpus": CATALOG["gpus"][:5]}

    assert api.judge.judge_answer("get", "/v2/catalog/gpus", 200, known) == []
    assert api.judge.judge_answer("get", "/v2/pods", 200, make_page(make_pod(ssh=READY_SSH))) == []


def test_the_jobs_regions_are_kept_in_order_and_sold_out_ones_are_marked(api: FakeApi, tmp_path: Path) -> None:
    offers = make_runpod(api, tmp_path).offers(Need(gpu="H100-SXM", regions=("us-ks-2", "EU-RO-1", "EU-SE-1")))

    assert describe(offers) == [
        ("H100-SXM", "US-KS-2", 2.99, True),
        ("H100-SXM", "EU-RO-1", 2.99, True),
        ("H100-SXM", "EU-SE-1", 2.99, False),
    ]


def test_data_centres_and_tier_come_from_the_environment_when_the_job_is_silent(api: FakeApi, tmp_path: Path) -> None:
    cloud = make_runpod(api, tmp_path, runpod_data_centers=("EU-RO-1",), runpod_cloud_type="COMMUNITY")

    assert describe(cloud.offers(Need(gpu="H100-SXM"))) == [("H100-SXM", "EU-RO-1", 2.69, True)]
    assert describe(cloud.offers(Need(gpu="H100-SXM", regions=("US-KS-2",), tier="secure"))) == [
        ("H100-SXM", "US-KS-2", 2.99, True)
    ]


def test_any_gpu_with_enough_memory_counts_but_no_other_vendors(api: FakeApi, tmp_path: Path) -> None:
    offers = make_runpod(api, tmp_path).offers(Need(min_gb=48))

    assert [offer.gpu for offer in offers][:2] == ["L40S", "NVIDIA RTX 9999"]
    assert "MI300X" not in {offer.gpu for offer in offers}
    assert make_runpod(api, tmp_path).offers(Need(gpu="MI300X"))[0].memory_gb == 192


def test_a_new_word_for_the_stock_counts_as_stock(api: FakeApi, tmp_path: Path) -> None:
    (offer,) = make_runpod(api, tmp_path).offers(Need(gpu="NVIDIA RTX 9999"))

    assert (offer.available, offer.stock) == (True, "SCARCE")


def test_a_gpu_that_is_sold_out_everywhere_is_listed_as_such(api: FakeApi, tmp_path: Path) -> None:
    assert describe(make_runpod(api, tmp_path).offers(Need(gpu="B200"))) == [("B200", "", 5.98, False)]


@pytest.mark.parametrize(
    ("need", "where", "words"),
    [
        (Need(gpu="H1000"), "", "H100"),
        (Need(gpu="NVIDIA H100 80GB HBM2"), "gpu", "NVIDIA H100 80GB HBM3"),
        (Need(gpu="A10"), "gpu", "A10"),
        (Need(gpu="L40S", count=8), "count", "4 or fewer"),
        (Need(gpu="B200", tier="community"), "tier", "secure"),
        (Need(gpu="H100", tier="spot"), "tier", "secure, community"),
        (Need(gpu="H100", regions=("US-KS-9",)), "regions", "US-KS-2"),
    ],
)
def test_what_runpod_can_never_give_is_refused_with_what_it_can(
    api: FakeApi, tmp_path: Path, need: Need, where: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        make_runpod(api, tmp_path).offers(need)
    assert caught.value.where == where
    assert words in str(caught.value)


def test_a_model_that_the_catalog_does_not_list_today_is_no_mistake(api: FakeApi, tmp_path: Path) -> None:
    assert make_runpod(api, tmp_path).offers(Need(gpu="RTX-4090")) == []


def test_a_create_holds_everything_that_was_decided_and_the_contract_allows(api: FakeApi, tmp_path: Path) -> None:
    api.on("POST /pods", reply(201, make_pod(status="PROVISIONING")))
    cloud = make_runpod(api, tmp_path, runpod_ssh_public_key="ssh-ed25519 AAAAmine me")

    id = cloud.launch(make_request("runpod", settings={"network_volume": "vol1", "min_cuda": "12.8"}))

    (body,) = api.sent("POST /pods")
    assert id == "7h9k2m4n6p"
    assert body["name"] == NAME
    assert body["gpu"] == {"id": "NVIDIA H100 80GB HBM3", "count": 1, "minCudaVersion": "12.8"}
    assert (body["cloud"], body["dataCenterIds"], body["ports"]) == ("SECURE", ["US-KS-2"], ["22/tcp"])
    assert (body["disk"], body["image"]) == (100, "vllm/vllm-openai:latest")
    assert body["mounts"] == {"network": [{"volumeId": "vol1", "path": "/workspace"}]}
    assert body["entrypoint"] == ["/bin/sh", "-c"] and "sshd" in body["cmd"][0]
    env = body["env"]
    assert env["PUBLIC_KEY"] == f"{KEYS.public}\nssh-ed25519 AAAAmine me"
    assert base64.b64decode(env["SSH_HOST_ED25519_KEY"]).decode() == HOST_KEYS.private
    assert env["LEASEHOLD_NAME"] == NAME and env["LEASEHOLD_EXPIRES_AT"] == str(EXPIRES_AT)
    assert env["LEASEHOLD_HEARTBEAT_TIMEOUT_S"] == "1800"
    assert env["LEASEHOLD_API_URL"] == "https://api.runpod.io/v2"
    assert env["HF_HOME"] == "/workspace/huggingface"
    assert RUNPOD_KEY not in json.dumps(body)
    assert len(json.dumps(body)) < 50_000


def test_an_offer_without_a_region_leaves_the_choice_to_runpod(api: FakeApi, tmp_path: Path) -> None:
    api.on("POST /pods", reply(201, make_pod()))
    request = make_request("runpod", image="mine:1", disk_gb=0)
    offer = Offer(**{name: getattr(request.offer, name) for name in request.offer.__struct_fields__} | {"region": ""})

    make_runpod(api, tmp_path).launch(make_request("runpod", offer=offer, image="mine:1", disk_gb=0))

    (body,) = api.sent("POST /pods")
    assert "dataCenterIds" not in body
    assert (body["image"], body["disk"]) == ("mine:1", 100)


def test_a_service_that_does_not_know_the_arrays_gets_them_as_json_text(tmp_path: Path) -> None:
    api = FakeApi(RUNPOD_AUGUST, "/v2")
    api.on(
        "POST /pods",
        problem(422, "Request validation failed.", ["$: additional properties 'cmd', 'entrypoint' not allowed"]),
        reply(201, make_pod()),
    )
    cloud = make_runpod(api, tmp_path)

    assert cloud.launch(make_request("runpod")) == "7h9k2m4n6p"
    first, second = api.sent("POST /pods")
    assert "cmd" not in second and "entrypoint" not in second
    assert json.loads(second["args"]) == {"entrypoint": first["entrypoint"], "cmd": first["cmd"]}
    cloud.launch(make_request("runpod"))
    assert len(api.sent("POST /pods")) == 3
    refused_by_august = [each for each in api.problems if "cmd" in each]
    assert len(api.problems) == len(refused_by_august) == 1


def test_the_fallback_body_is_what_the_august_contract_says(api: FakeApi, tmp_path: Path) -> None:
    api.on("POST /pods", problem(422, "no", ["$: 'entrypoint'"]), reply(201, make_pod()))
    make_runpod(api, tmp_path).launch(make_request("runpod"))

    assert load_judge(RUNPOD_AUGUST, "/v2").find_problems(api.requests[-1]) == []


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (problem(400, FULL), NoCapacity, "no longer any instances"),
        (problem(400, "This machine does not have the resources to deploy your pod."), NoCapacity, "spend limit"),
        (reply(400, {"error": "not enough free GPUs on the host machine"}), NoCapacity, "not enough free"),
        (problem(400, "Unknown GPU type: X"), RequestRefused, "Unknown GPU type"),
        (problem(422, "Unknown GPU type: X"), RequestRefused, "HTTP 422"),
        (problem(402, "balance"), RequestRefused, "Add credit"),
        (problem(403, "access denied"), CredentialError, "RUNPOD_API_KEY"),
        (problem(403, "Your account cannot access the requested pool."), RequestRefused, "pool"),
        (httpx.Response(403, content=b"error code: 1010"), CloudError, "network edge"),
        (problem(401, "missing bearer token"), CredentialError, "RUNPOD_API_KEY"),
        (reply(401, {"error": {}}), CredentialError, "read and write for pods"),
        (problem(404, "template not found"), RequestRefused, "template"),
        (reply(413), RequestRefused, "HTTP 413"),
        (reply(410), RetiredApi, "RUNPOD_BASE_URL"),
        (problem(500, FULL), UnclearOutcome, "may exist or not"),
        (httpx.Response(524, content=b"<html>"), UnclearOutcome, "HTTP 524"),
        (httpx.Response(201, content=b"<html>"), UnclearOutcome, "id"),
        (reply(201, {"id": ""}), UnclearOutcome, "id"),
        (httpx.ReadTimeout("slow"), UnclearOutcome, "ReadTimeout"),
    ],
)
def test_a_create_that_fails_says_how_and_is_sent_once(
    api: FakeApi, tmp_path: Path, answer: Any, error: type[LeaseholdError], words: str
) -> None:
    api.on("POST /pods", answer)

    with pytest.raises(error) as caught:
        make_runpod(api, tmp_path).launch(make_request("runpod"))
    assert words in str(caught.value)
    assert len(api.requests) == 1
    assert RUNPOD_KEY not in str(caught.value)


def test_a_refusal_that_echoes_the_order_does_not_show_the_host_key(api: FakeApi, tmp_path: Path) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        return problem(422, f"bad body {request.content.decode()}", [request.content.decode()[:600]])

    api.on("POST /pods", echo)
    api.scripts["POST /pods"].append(echo)

    with pytest.raises(RequestRefused) as caught:
        make_runpod(api, tmp_path).launch(make_request("runpod"))
    shown = f"{caught.value} {vars(caught.value)}"
    secret = base64.b64encode(HOST_KEYS.private.encode()).decode()
    assert not any(secret[start : start + 40] in shown for start in range(0, len(secret) - 40, 20))


def test_a_create_that_must_wait_says_so_instead_of_holding_the_lease(api: FakeApi, tmp_path: Path) -> None:
    clock = FakeClock()
    api.on("POST /pods", reply(429, {"title": "Too Many", "status": 429, "detail": "slow"}, retry_after="20"))

    with pytest.raises(RateLimited) as caught:
        make_runpod(api, tmp_path, clock).launch(make_request("runpod"))
    assert caught.value.retry_after_s == 20
    assert clock.slept == [] and len(api.requests) == 1


def test_the_rate_limit_header_holds_back_the_next_read(api: FakeApi, tmp_path: Path) -> None:
    clock = FakeClock()
    api.on("GET /pods", reply(200, make_page(), ratelimit='"minute";r=0;t=12, "hour";r=9;t=99'))
    cloud = make_runpod(api, tmp_path, clock)

    cloud.list_ours("lh-")
    cloud.list_ours("lh-")
    assert clock.slept == [12]


@pytest.mark.parametrize("settings", [{"network_volume": "v:relative"}, {"network_volume": "v:/"}, {"min_cuda": "new"}])
def test_settings_that_cannot_be_sent_are_refused_before_anything_is(
    api: FakeApi, tmp_path: Path, settings: dict[str, str]
) -> None:
    with pytest.raises(SpecError) as caught:
        make_runpod(api, tmp_path).launch(make_request("runpod", settings=settings))
    assert caught.value.where in settings
    assert api.requests == []


def test_an_order_that_is_too_long_is_refused_before_it_is_sent(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="bytes"):
        make_runpod(api, tmp_path, runpod_ssh_public_key="k" * 100_000).launch(make_request("runpod"))


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({"status": "PROVISIONING"}, "starting"),
        ({"status": "STARTING"}, "starting"),
        ({"status": "RUNNING"}, "starting"),
        ({"status": "RUNNING", "runtime": {}}, "starting"),
        ({"status": "RUNNING", "ssh": READY_SSH}, "ready"),
        ({"status": "RUNNING", "ssh": {"direct": {"host": "", "port": 1}}}, "starting"),
        ({"status": "RUNNING", "ssh": {"direct": {"host": "1.2.3.4", "port": 0}}}, "starting"),
        ({"status": "RUNNING", "ssh": None}, "starting"),
        ({"status": "EXITED", "ssh": READY_SSH}, "failed"),
        ({"status": "ERROR"}, "failed"),
        ({"status": "HIBERNATING"}, "starting"),
        ({"status": "TERMINATING"}, "ending"),
        ({"status": None}, "starting"),
    ],
)
def test_a_pod_is_ready_by_its_direct_ssh_and_not_by_running(
    api: FakeApi, tmp_path: Path, fields: dict[str, Any], phase: str
) -> None:
    api.on("GET /pods/7h9k2m4n6p", reply(200, make_pod(**fields)))

    state = make_runpod(api, tmp_path).find("7h9k2m4n6p")

    assert state is not None and state.phase == phase
    assert (state.endpoint is not None) is (phase == "ready")


def test_a_ready_pod_is_described_whole(api: FakeApi, tmp_path: Path) -> None:
    pod = make_pod(ssh={"direct": {**READY_SSH["direct"], "port": "10341"}}, cost="2.99", futureField=[1])  # type: ignore[dict-item]
    api.on("GET /pods/7h9k2m4n6p", reply(200, pod))

    state = make_runpod(api, tmp_path).find("7h9k2m4n6p")

    assert state is not None
    assert state.endpoint == Endpoint(host="203.0.113.17", port=10341, user="root")
    assert (state.price_usd_per_hour, state.region, state.name) == (2.99, "US-KS-2", NAME)
    assert state.created_at == 1795424400.0


def test_a_name_is_looked_up_over_all_pages_and_without_asking_for_an_id(api: FakeApi, tmp_path: Path) -> None:
    pages = {
        "": make_page(make_pod(id="a", name="other"), cursor="c1"),
        "c1": make_page(cursor="c2"),
        "c2": make_page(make_pod(id="late", createdAt="2026-11-23T10:00:00Z"), make_pod(id="early")),
    }
    api.on("GET /pods", lambda request: reply(200, pages[request.url.params.get("cursor", "")]))

    state = make_runpod(api, tmp_path).find(NAME)

    assert state is not None and state.id == "early"
    assert [request.url.params.get("cursor") for request in api.requests] == [None, "c1", "c2"]
    assert all(request.url.params["includeClusterPods"] == "true" for request in api.requests)


def test_an_id_that_a_look_up_misses_is_sought_in_the_list(api: FakeApi, tmp_path: Path) -> None:
    api.on("GET /pods/7h9k2m4n6p", problem(404, "pod not found")).on("GET /pods", reply(200, make_page(make_pod())))

    assert make_runpod(api, tmp_path).find("7h9k2m4n6p") is not None
    api.on("GET /pods", reply(200, make_page()))
    assert make_runpod(api, tmp_path).find("7h9k2m4n6p") is None


def test_a_pod_of_others_that_is_called_like_an_id_of_ours_is_not_ours(api: FakeApi, tmp_path: Path) -> None:
    foreign = make_pod(id="theirs", name="7h9k2m4n6p")
    api.on("GET /pods/7h9k2m4n6p", problem(404, "pod not found")).on("GET /pods", reply(200, make_page(foreign)))

    assert make_runpod(api, tmp_path).find("7h9k2m4n6p") is None


def test_a_terminated_pod_is_gone(api: FakeApi, tmp_path: Path) -> None:
    gone = make_pod(status="TERMINATED")
    api.on("GET /pods/7h9k2m4n6p", reply(200, gone)).on("GET /pods", reply(200, make_page(gone)))
    cloud = make_runpod(api, tmp_path)

    assert cloud.find("7h9k2m4n6p") is None
    assert cloud.find(NAME) is None
    assert cloud.list_ours("lh-") == []


def test_only_pods_with_our_prefix_are_ours_over_all_pages(api: FakeApi, tmp_path: Path) -> None:
    api.on(
        "GET /pods",
        reply(200, make_page(make_pod(id="a", name="lh-x-1"), make_pod(id="b", name="someone"), cursor="c")),
        reply(200, {"pods": [make_pod(id="c", name="lh-x-2", status="EXITED"), make_pod(id="d", name=None)]}),
    )

    assert [state.id for state in make_runpod(api, tmp_path).list_ours("lh-x-")] == ["a", "c"]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"{}",
        b'{"pods": null}',
        b'{"pods": [7]}',
        b'{"pods": [{"name": "lh-x"}]}',
        b'{"pods": [], "pagination": {"hasNextPage": true, "nextCursor": null}}',
        b"[]",
    ],
)
def test_a_list_that_cannot_be_read_whole_is_never_an_empty_one(api: FakeApi, tmp_path: Path, body: bytes) -> None:
    api.on("GET /pods", httpx.Response(200, content=body))

    with pytest.raises(CloudError):
        make_runpod(api, tmp_path).list_ours("lh-")
    assert len(api.requests) == 4


def test_pages_that_go_round_in_circles_end(api: FakeApi, tmp_path: Path) -> None:
    api.on("GET /pods", reply(200, make_page(cursor="c")))

    with pytest.raises(CloudError, match="does not end"):
        make_runpod(api, tmp_path).list_ours("lh-")
    assert len(api.requests) < 5


@pytest.mark.parametrize(
    "answers", [[reply(204)], [problem(404, "pod not found")], [reply(500), reply(404)], [reply(502), reply(204)]]
)
def test_terminating_takes_gone_as_success(api: FakeApi, tmp_path: Path, answers: list[httpx.Response]) -> None:
    api.on("DELETE /pods/p1", *answers)

    make_runpod(api, tmp_path).terminate("p1")
    make_runpod(api, tmp_path).terminate("p1")

    assert len(api.requests) == len(answers) + 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(409, "cluster member"), RequestRefused),
        (problem(403, "access denied"), CredentialError),
        (reply(500), CloudError),
    ],
)
def test_terminating_that_does_not_work_is_an_error(
    api: FakeApi, tmp_path: Path, answer: httpx.Response, error: type[LeaseholdError]
) -> None:
    api.on("DELETE /pods/p1", answer)

    with pytest.raises(error):
        make_runpod(api, tmp_path).terminate("p1")


def test_an_id_is_quoted_in_a_path(api: FakeApi, tmp_path: Path) -> None:
    api.on("DELETE /pods/a/b?c", reply(204))

    make_runpod(api, tmp_path).terminate("a/b?c")

    assert api.requests[0].url.raw_path == b"/v2/pods/a%2Fb%3Fc"


def test_the_log_is_read_from_events_of_any_shape(api: FakeApi, tmp_path: Path) -> None:
    events = (
        b'id: 1\ndata: {"ts":"2026-11-23T09:00:00Z","source":"system","line":"pulling image"}\n\n'
        b'data: not json\n\n: keep-alive\n\ndata: {"line": 7}\n\n'
    )
    api.on("GET /pods/p1/logs", httpx.Response(200, content=events))

    log = make_runpod(api, tmp_path).logs("p1")

    assert log == "2026-11-23T09:00:00Z system pulling image\nnot json\n7\n"
    assert api.requests[0].url.params["tail"] == "500"


def test_a_long_log_keeps_its_end(api: FakeApi, tmp_path: Path) -> None:
    lines = b"".join(b'data: {"line":"%07d"}\n\n' % number for number in range(20_000))
    api.on("GET /pods/p1/logs", httpx.Response(200, content=lines))

    log = make_runpod(api, tmp_path).logs("p1")

    assert len(log) <= 65536 and log.endswith("0019999\n")


def test_a_pod_that_is_gone_has_no_log(api: FakeApi, tmp_path: Path) -> None:
    api.on("GET /pods/p1/logs", problem(404, "pod not found"))

    assert make_runpod(api, tmp_path).logs("p1") == ""


def test_the_bill_is_the_sum_of_a_pods_records(api: FakeApi, tmp_path: Path) -> None:
    records = [
        {"podId": "p1", "totalAmount": 1.25},
        {"podId": "p1", "totalAmount": "0.75"},
        {"podId": "p2", "totalAmount": 99},
        {"podId": "p1"},
    ]
    api.on("GET /billing/pods", reply(200, {"records": records, "metadata": {}}), reply(200, {"records": []}))
    cloud = make_runpod(api, tmp_path)

    assert cloud.billed_usd("p1", start=1_790_000_000, end=1_790_007_200) == 2.0
    assert cloud.billed_usd("p1", start=1_790_000_000, end=1_790_000_000) is None
    assert isinstance(cloud, BillingCloud)
    assert dict(api.requests[0].url.params) == {
        "podId": "p1",
        "startTime": "2026-09-21T14:13:20Z",
        "endTime": "2026-09-21T16:13:20Z",
        "bucketSize": "hour",
    }


def test_a_missing_key_shows_at_the_first_use(api: FakeApi, tmp_path: Path) -> None:
    cloud = make_runpod(api, tmp_path, runpod_api_key=None)

    with pytest.raises(CredentialError, match="RUNPOD_API_KEY"):
        cloud.list_ours("lh-")


def test_the_retired_api_is_refused_by_its_address_and_by_its_answer(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(RetiredApi, match="REST v1"):
        make_runpod(api, tmp_path, runpod_base_url="https://rest.runpod.io/v1").list_ours("lh-")
    api.on("GET /pods", reply(410))
    with pytest.raises(RetiredApi):
        make_runpod(api, tmp_path).list_ours("lh-")


def test_a_cloud_shows_no_key(api: FakeApi, tmp_path: Path) -> None:
    cloud: RunPod = make_runpod(api, tmp_path)

    assert RUNPOD_KEY not in f"{cloud!r} {vars(cloud)}"
