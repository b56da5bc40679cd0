"""The emulated RunPod as its document and the reports of live calls describe it, in both forms of the document."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.wire

H100 = "NVIDIA H100 80GB HBM3"
PROBLEM = "application/problem+json"
CAPACITY = "There are no longer any instances available"


@pytest.mark.parametrize("form", ["august", "september"])
def test_a_pod_goes_from_create_to_gone_in_the_shapes_of_the_document(open_account: Any, form: str) -> None:
    account = open_account("runpod", contract=form)

    made = account.make_pod()
    assert made["status"] == "RUNNING" and made["ssh"] == {"proxy": None, "direct": None} and made["runtime"] is None
    account.emulator.advance(49)
    assert account.get_pod(made["id"])["ssh"]["direct"] is None
    account.emulator.advance(40)
    ready = account.get_pod(made["id"])
    assert ready["ssh"]["direct"]["port"] == ready["runtime"]["ports"][0]["public"]
    assert ready["cost"] == 2.99
    listed = account.http.get("/pods").json()
    assert [pod["id"] for pod in listed["pods"]] == [made["id"]]
    assert ("pagination" in listed, "cmd" in made, "vcpuCount" in made["gpu"]) == ((form == "september",) * 3)
    assert account.http.delete(f"/pods/{made['id']}").status_code == 204
    assert account.http.delete(f"/pods/{made['id']}").status_code == 404
    assert account.http.get("/pods").json()["pods"] == []


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"disk": None}, 400, "template id or pod configuration"),
        ({"cpu": {"id": "cpu3c", "vcpuCount": 2}}, 400, "exactly one"),
        ({"gpu": None}, 400, "exactly one"),
        ({"gpu": {"id": "NVIDIA Z9", "count": 1}}, 400, "Unknown GPU type: NVIDIA Z9"),
        ({"gpu": {"id": H100, "count": 1, "minCudaVersion": "12.0", "allowedCudaVersions": ["12.8"]}}, 400, "exclude"),
        ({"gpu": {"id": H100}}, 400, CAPACITY),
        ({"gpu": {"id": H100, "count": 9}}, 400, CAPACITY),
        ({"gpu": {"id": H100, "count": 1, "minCudaVersion": "13.0"}}, 400, CAPACITY),
        ({"gpu": {"id": H100, "count": 1, "minRamPerGpu": 4000}}, 400, CAPACITY),
        ({"gpu": {"id": "NVIDIA B200", "count": 1}}, 400, CAPACITY),
        ({"dataCenterIds": ["CA-MTL-1"]}, 400, CAPACITY),
        ({"ports": ["22/udp"]}, 400, "22/udp"),
        ({"templateId": "t1"}, 404, "template"),
        ({"registry": "r1"}, 404, "registry"),
        ({"mounts": {"network": [{"volumeId": "v", "path": "/v"}]}}, 400, "volume"),
        ({"args": "sleep 1", "cmd": ["sleep", "2"]}, 400, "different"),
        ({"colour": "red"}, 422, "additional properties 'colour'"),
    ],
)
def test_a_create_that_cannot_be_is_refused(
    runpod: Any, changes: dict[str, Any], status: int, words: str, make_pod_body: Any
) -> None:
    answer = runpod.http.post("/pods", json=make_pod_body(**changes))

    assert answer.status_code == status and words in answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert runpod.emulator.machines() == []


def test_the_command_comes_back_in_every_form(runpod: Any, open_account: Any) -> None:
    made = runpod.make_pod(entrypoint=["bash", "-c"], cmd=["echo 'a b'"])

    assert (made["entrypoint"], made["cmd"]) == (["bash", "-c"], ["echo 'a b'"])
    assert json.loads(made["args"]) == {"entrypoint": ["bash", "-c"], "cmd": ["echo 'a b'"]}
    assert runpod.make_pod(args="sleep 'a b'")["cmd"] == ["sleep", "a b"]
    august = open_account("runpod", contract="august")
    assert august.make_pod(args=made["args"])["args"] == made["args"]


def test_stock_is_taken_and_given_back(runpod: Any, make_pod_body: Any) -> None:
    runpod.emulator.set_stock(H100, "US-KS-2", 2)
    body = make_pod_body(dataCenterIds=["US-KS-2"], gpu={"id": H100, "count": 2})
    pod = runpod.http.post("/pods", json=body).json()

    assert runpod.http.post("/pods", json=body).status_code == 400
    runpod.http.delete(f"/pods/{pod['id']}")
    assert runpod.http.post("/pods", json=body).status_code == 201


@pytest.mark.parametrize(
    ("header", "status", "detail"),
    [(None, 401, "missing bearer token"), ("Bearer wrong", 401, "invalid"), ("Basic abc", 401, "missing bearer token")],
)
def test_a_wrong_key_gets_401_without_rate_limit_headers(
    runpod: Any, header: str | None, status: int, detail: str
) -> None:
    headers = {"User-Agent": "t/1"} | ({"Authorization": header} if header else {})

    answer = httpx.get(f"{runpod.emulator.base_url}/pods", headers=headers)

    assert answer.status_code == status and detail in answer.json()["detail"]
    assert "ratelimit" not in answer.headers


def test_a_read_only_key_may_only_read(runpod: Any, make_http: Any, make_pod_body: Any) -> None:
    with make_http(runpod.emulator.base_url, runpod.emulator.key + "_read_only") as http:
        assert http.get("/pods").status_code == 200
        assert http.post("/pods", json=make_pod_body()).json()["detail"] == "access denied"


def test_every_answer_to_a_key_counts_down_the_quota_until_429(runpod: Any) -> None:
    runpod.emulator.set_fault("quota", {"minute": 3, "hour": 100, "day": 1000})

    answers = [runpod.http.get("/pods") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit"].startswith('"minute";r=2;t=')
    assert answers[0].headers["ratelimit-policy"] == '"minute";q=3;w=60, "hour";q=100;w=3600, "day";q=1000;w=86400'
    assert answers[3].json()["detail"] == "rate limit exceeded for the minute window"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    runpod.emulator.advance(60)
    assert runpod.http.get("/pods").status_code == 200


def test_lists_come_in_pages_newest_first_with_cluster_members_taken_out_after_the_cut(open_account: Any) -> None:
    account = open_account("runpod", foreign=60)
    ids, cursor, pages = list[str](), None, 0
    while True:
        page = account.http.get("/pods", params={"limit": 25} | ({"cursor": cursor} if cursor else {})).json()
        ids += [pod["id"] for pod in page["pods"]]
        pages += 1
        cursor = page["pagination"]["nextCursor"]
        if not page["pagination"]["hasNextPage"]:
            break

    assert pages == 3 and len(ids) == len(set(ids)) == 58
    assert ids == sorted(ids, reverse=True)
    assert cursor is None
    whole = account.http.get("/pods", params={"includeClusterPods": "true"}).json()
    assert len(whole["pods"]) == 60


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "many"}, {"cursor": "?"}, {"cursor": ""}])
def test_a_bad_page_is_refused_and_unknown_parameters_are_not(runpod: Any, query: dict[str, str]) -> None:
    assert runpod.http.get("/pods", params=query).status_code == 422
    assert runpod.http.get("/pods", params={"name": "job"}).status_code == 200


def test_a_cursor_is_good_only_for_its_own_parameters(open_account: Any) -> None:
    account = open_account("runpod", foreign=5)
    cursor = account.http.get("/pods", params={"limit": 2}).json()["pagination"]["nextCursor"]

    assert account.http.get("/pods", params={"limit": 3, "cursor": cursor}).status_code == 422


def test_a_body_over_the_limit_gets_413_before_the_key_is_looked_at(
    runpod: Any, open_account: Any, make_pod_body: Any
) -> None:
    body = json.dumps(make_pod_body(env={"X": "x" * 102_400}))
    headers = {"User-Agent": "t/1"}

    assert httpx.post(f"{runpod.emulator.base_url}/pods", content=body, headers=headers).status_code == 413
    august = open_account("runpod", contract="august")
    assert august.http.post("/pods", content=body).status_code == 201


def test_actions_are_allowed_by_status_and_a_stopped_pod_costs_its_disk(runpod: Any) -> None:
    pod = runpod.make_pod()
    runpod.emulator.advance(100)
    first_port = runpod.get_pod(pod["id"])["ssh"]["direct"]["port"]

    def act(action: str) -> httpx.Response:
        return runpod.http.post(f"/pods/{pod['id']}/action", json={"action": action})

    assert act("start").status_code == 409
    assert act("go").json()["errors"] == ["$.action: value must be one of 'start', 'stop', 'restart', 'terminate'"]
    stopped = act("stop").json()
    assert (stopped["status"], stopped["cost"], stopped["actions"]) == ("EXITED", 0.0, ["start", "terminate"])
    before = runpod.emulator.cost_usd()
    runpod.emulator.advance(36_000)
    assert 0 < runpod.emulator.cost_usd() - before < 0.1
    assert act("start").json()["status"] == "RUNNING"
    runpod.emulator.advance(100)
    assert runpod.get_pod(pod["id"])["ssh"]["direct"]["port"] != first_port
    assert act("terminate").status_code == 204
    assert act("stop").status_code == 404


def test_a_pod_can_be_changed_and_locked(runpod: Any) -> None:
    pod = runpod.make_pod()

    changed = runpod.http.patch(f"/pods/{pod['id']}", json={"name": "other", "locked": True}).json()

    assert (changed["name"], changed["locked"]) == ("other", True)
    assert runpod.http.post(f"/pods/{pod['id']}/action", json={"action": "stop"}).status_code == 409
    assert runpod.http.patch(f"/pods/{pod['id']}", json={"gpu": {"id": H100}}).status_code == 422


def test_the_catalogue_tells_prices_stock_and_places(runpod: Any) -> None:
    bare = {gpu["id"]: gpu for gpu in runpod.http.get("/catalog/gpus").json()["gpus"]}
    full = {
        gpu["id"]: gpu
        for gpu in runpod.http.get("/catalog/gpus?include=AVAILABILITY&product=POD&count=8&cloud=SECURE").json()["gpus"]
    }

    assert "availability" not in bare[H100] and bare[H100]["price"]["secure"] == 2.99
    assert [(c["id"], c["availability"]) for c in full[H100]["dataCenters"]] == [
        ("US-KS-2", "MEDIUM"),
        ("US-TX-3", "LOW"),
    ]
    assert full["NVIDIA B200"]["availability"] == "NONE" and "dataCenters" not in full["NVIDIA B200"]
    one = runpod.http.get("/catalog/gpus/NVIDIA%20L4?include=AVAILABILITY&product=POD&countryCodes=RO").json()
    assert [center["id"] for center in one["dataCenters"]] == ["EU-RO-1"]
    centers = runpod.http.get("/catalog/datacenters?include=GPU_AVAILABILITY&regions=EUROPE").json()["dataCenters"]
    assert {center["id"] for center in centers} == {"EU-RO-1", "EU-SE-1", "EUR-IS-1"}
    assert runpod.http.get("/catalog/datacenters/US-KS-2").json()["name"] == "US Kansas 2"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("include=AVAILABILITY", 400),
        ("product=POD", 400),
        ("count=2", 400),
        ("include=AVAILABILITY&product=POD&cudaVersions=12.8&minCudaVersion=12", 400),
        ("include=AVAILABILITY&product=POD&minCudaVersion=new", 422),
        ("include=AVAILABILITY&product=POD&count=0", 422),
    ],
)
def test_catalogue_parameters_that_do_not_go_together_are_refused(runpod: Any, query: str, status: int) -> None:
    assert runpod.http.get(f"/catalog/gpus?{query}").status_code == status


def test_what_was_billed_can_be_asked(runpod: Any) -> None:
    pod = runpod.make_pod()
    runpod.emulator.advance(7200)
    runpod.http.delete(f"/pods/{pod['id']}")

    bill = runpod.http.get("/billing/pods", params={"podId": pod["id"], "lastN": 3, "bucketSize": "day"}).json()

    assert sum(record["gpuAmount"] for record in bill["records"]) == pytest.approx(2 * 2.99, rel=0.01)
    assert bill["metadata"]["totals"]["totalAmount"] == pytest.approx(runpod.emulator.cost_usd(), rel=0.01)
    assert runpod.http.get("/billing/pods", params={"startTime": "2026-11-01T00:00:00Z"}).status_code == 400


def test_v1_is_retired_unknown_paths_are_404_and_wrong_methods_405(runpod: Any) -> None:
    root = runpod.emulator.base_url.removesuffix("/v2")
    agent = {"User-Agent": "t/1"}

    assert httpx.get(f"{root}/v1/pods", headers=agent).status_code == 410
    assert runpod.http.get("/tags").json()["detail"] == "resource not found"
    wrong = runpod.http.put("/pods")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, POST")
    assert httpx.get(f"{root}/v2/openapi.json", headers=agent).json()["openapi"] == "3.1.0"


def test_the_key_inside_a_pod_works_for_that_pod_alone(runpod: Any, make_http: Any, open_account: Any) -> None:
    server_side = start_with_known_keys(open_account)
    account, keys = server_side
    own, other = (account.make_pod(name=name)["id"] for name in ("a", "b"))

    with make_http(account.emulator.base_url, keys()[own]) as http:
        assert http.get(f"/pods/{own}").status_code == 200
        assert http.get(f"/pods/{other}").status_code == 403
        assert http.get("/pods").status_code == 403
        assert http.delete(f"/pods/{other}").status_code == 403
        assert http.delete(f"/pods/{own}").status_code == 204
        assert http.get(f"/pods/{own}").status_code == 401


def start_with_known_keys(open_account: Any) -> Any:
    """An account, and a look at the keys that its pods have inside, which no route tells."""
    from providers.emulators import emulator as module

    servers: list[Any] = []
    original = module.make_server
    module.make_server = lambda cloud, settings: servers.append(original(cloud, settings)) or servers[-1]  # type: ignore[assignment, func-returns-value]
    try:
        account = open_account("runpod")
    finally:
        module.make_server = original  # type: ignore[assignment]
    return account, lambda: {pod.id: pod.key for pod in servers[0].account.pods.pods.values()}


def test_graphql_ends_a_pod_and_honours_an_expiry_on_the_clouds_clock(open_account: Any, make_http: Any) -> None:
    account, keys = start_with_known_keys(open_account)
    root = account.emulator.base_url.removesuffix("/v2")
    pod_id = account.make_pod()["id"]
    end = {"query": f'mutation {{ podTerminate(input: {{podId: "{pod_id}"}}) }}'}
    with make_http(root, keys()[pod_id]) as http:
        assert (
            http.post("/graphql", json={"query": "query { myself { id } }"}).json()["errors"][0]["message"]
            == "Unauthorized"
        )
        assert http.post("/graphql", json=end).json() == {"data": {"podTerminate": None}}
    with make_http(root, account.emulator.key) as http:
        assert http.post("/graphql", json=end).json()["errors"][0]["message"] == "pod not found to terminate"
        assert http.post("/graphql", json={"query": "query { nonsense }"}).status_code == 400
        assert http.post("/graphql", json={"query": "query { gpuTypes { id } }"}).json()["data"]["gpuTypes"]
        expiry = account.emulator.now() + 600
        made = http.post(
            "/graphql",
            json={
                "query": "mutation D($in: PodInput!) { podFindAndDeployOnDemand(input: $in) { id } }",
                "variables": {"in": make_graphql_input(expiry)},
            },
        ).json()["data"]["podFindAndDeployOnDemand"]
    assert account.get_pod(made["id"])["name"] == "with-expiry"
    account.emulator.advance(601)
    assert account.http.get(f"/pods/{made['id']}").status_code == 404


def make_graphql_input(expiry: float) -> dict[str, Any]:
    from providers.emulators.clock import to_rfc3339

    return {
        "name": "with-expiry",
        "gpuTypeId": H100,
        "gpuCount": 1,
        "imageName": "runpod/pytorch",
        "containerDiskInGb": 20,
        "ports": "22/tcp",
        "env": [{"key": "A", "value": "b"}],
        "terminateAfter": to_rfc3339(expiry),
    }


def test_the_other_parts_of_an_account_keep_to_the_document(runpod: Any) -> None:
    http = runpod.http
    assert http.get("/account/ssh-keys").json() == {"keys": []}
    assert http.put("/account/ssh-keys", json={"keys": ["ssh-ed25519 AAAA me"]}).status_code == 200
    registry = http.post("/registries", json={"name": "r", "username": "u", "password": "p"}).json()
    runpod.make_pod(registry=registry["id"])
    assert http.delete(f"/registries/{registry['id']}").status_code == 400
    volume = http.post("/network-volumes", json={"name": "v", "size": 20, "dataCenter": "US-TX-3"}).json()
    pod = runpod.make_pod(mounts={"network": [{"volumeId": volume["id"], "path": "/v"}]})
    assert pod["dataCenterId"] == "US-TX-3"
    assert http.patch(f"/network-volumes/{volume['id']}", json={"size": 10}).status_code == 400
    assert http.post("/network-volumes", json={"name": "v", "size": 20, "dataCenter": "AP-JP-1"}).status_code == 400
    secret = http.post("/account/secrets", json={"name": "hostkey", "value": "s3cret"}).json()
    assert (
        "value" not in secret
        and http.post("/account/secrets", json={"name": "hostkey", "value": "x"}).status_code == 409
    )
    assert http.delete(f"/account/secrets/{secret['id']}").status_code == 204


def test_the_history_holds_bodies_and_statuses_and_no_key(runpod: Any, tmp_path: Any) -> None:
    runpod.make_pod(name="seen")
    exchange = runpod.emulator.history()[-1]

    assert (exchange.method, exchange.path, exchange.status, exchange.key) == ("POST", "/v2/pods", 201, "account")
    assert exchange.body["name"] == "seen" and exchange.machine == runpod.emulator.machines()[0].id
    on_disk = (tmp_path / "runpod-0" / "history.jsonl").read_text()
    assert '"seen"' in on_disk and runpod.emulator.key not in on_disk
    assert base64.b64encode(runpod.emulator.key.encode()).decode() not in on_disk


def test_machines_of_others_are_there_and_stay_untouched(open_account: Any) -> None:
    account = open_account("runpod", foreign=3)
    account.make_pod()

    assert [machine.is_foreign for machine in account.emulator.machines()] == [False]
    foreign = account.emulator.machines(foreign=True)
    assert len(foreign) == 3 and not any(machine.was_touched or machine.is_gone for machine in foreign)
    account.http.delete(f"/pods/{foreign[0].id}")
    assert account.emulator.machines(foreign=True)[0].was_touched
