"""Every fault knob of the emulated RunPod has its effect, and is gone when its uses are used up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.emulators.knobs import RUNPOD_KNOBS

pytestmark = pytest.mark.wire

H100 = "NVIDIA H100 80GB HBM3"
CAPACITY = "There are no longer any instances available"
# Tried in test_machines, where there are machines.
ON_MACHINES = {"nvidia_smi", "engine_crash", "apt_get_fails"}

ROUTES = Path(__file__).with_name("test_routes.py")
MACHINES = Path(__file__).parents[1] / "machines" / "test_machines.py"


def test_every_knob_is_tried_in_a_test() -> None:
    tried = "".join(path.read_text() for path in (Path(__file__), ROUTES, MACHINES))

    assert [knob.name for knob in RUNPOD_KNOBS if f'"{knob.name}"' not in tried] == []


@pytest.mark.parametrize(
    ("knob", "status", "words"),
    [
        ("create_500", 500, "Something went wrong"),
        ("insufficient_balance_402", 402, "balance"),
        ("pool_403", 403, "pool"),
        ("capacity_race", 400, CAPACITY),
        ("sold_out", 400, CAPACITY),
        ("rate_limit_now", 429, "rate limit exceeded"),
        ("edge_1010_html", 403, "error code: 1010"),
        ("empty_401", 401, ""),
        ("key_revoked", 401, "invalid"),
        ("api_down", 503, "<html>"),
    ],
)
def test_a_refused_create_makes_nothing_and_the_next_one_works(
    runpod: Any, make_pod_body: Any, knob: str, status: int, words: str
) -> None:
    runpod.emulator.set_fault(knob, count=1)

    refused = runpod.http.post("/pods", json=make_pod_body())

    assert refused.status_code == status and words in refused.text
    assert runpod.emulator.machines() == []
    assert runpod.emulator.history()[-1].fault == knob
    assert runpod.http.post("/pods", json=make_pod_body()).status_code == 201


def test_create_500_after_commit_makes_the_pod(runpod: Any, make_pod_body: Any) -> None:
    runpod.emulator.set_fault("create_500_after_commit", count=1)

    assert runpod.http.post("/pods", json=make_pod_body()).status_code == 500
    assert len(runpod.http.get("/pods").json()["pods"]) == 1


def test_create_hang_after_commit_makes_the_pod_and_answers_nothing(runpod: Any, make_pod_body: Any) -> None:
    runpod.emulator.set_fault("create_hang_after_commit", 60, count=1)

    with pytest.raises(httpx.ReadTimeout):
        runpod.http.post("/pods", json=make_pod_body(), timeout=0.3)

    assert len(runpod.emulator.live_machines()) == 1
    assert runpod.emulator.history()[-1].status == 0


def test_create_hang_of_a_moment_ends_in_a_cut_line(runpod: Any, make_pod_body: Any) -> None:
    runpod.emulator.set_fault("create_hang_after_commit", 0.05, count=1)

    with pytest.raises(httpx.RemoteProtocolError):
        runpod.http.post("/pods", json=make_pod_body())


def test_create_visible_after_hides_the_pod_everywhere(runpod: Any) -> None:
    runpod.emulator.set_fault("create_visible_after_s", 60)
    pod = runpod.make_pod()

    assert runpod.http.get(f"/pods/{pod['id']}").status_code == 404
    assert runpod.http.delete(f"/pods/{pod['id']}").status_code == 404
    assert runpod.http.get("/pods").json()["pods"] == []
    runpod.emulator.advance(61)
    assert [found["id"] for found in runpod.http.get("/pods").json()["pods"]] == [pod["id"]]


def test_capacity_race_lists_high_and_sold_out_lists_none(runpod: Any) -> None:
    query = "include=AVAILABILITY&product=POD"
    runpod.emulator.set_stock(H100, "US-KS-2", 0)
    runpod.emulator.set_fault("capacity_race")
    assert runpod.http.get(f"/catalog/gpus/{H100}?{query}").json()["availability"] == "HIGH"
    runpod.emulator.clear_faults()
    runpod.emulator.set_fault("sold_out", match=H100)

    assert runpod.http.get(f"/catalog/gpus/{H100}?{query}").json()["availability"] == "NONE"
    assert runpod.http.get(f"/catalog/gpus/NVIDIA L4?{query}").json()["availability"] != "NONE"


def test_ssh_never_and_stuck_provisioning_wait_for_ever_and_hold_back_nobody_else(runpod: Any) -> None:
    runpod.emulator.set_fault("ssh_never", match="^mute")
    runpod.emulator.set_fault("stuck_provisioning", match="^stuck")
    mute, stuck, fine = (runpod.make_pod(name=name)["id"] for name in ("mute", "stuck", "fine"))

    runpod.emulator.advance(36_000)

    assert runpod.get_pod(mute)["status"] == "RUNNING" and runpod.get_pod(mute)["ssh"]["direct"] is None
    assert runpod.get_pod(stuck)["status"] == "PROVISIONING" and runpod.get_pod(stuck)["cost"] == 2.99
    assert runpod.get_pod(fine)["ssh"]["direct"] is not None


def test_mode_a_goes_through_the_statuses_in_the_time_that_was_set(runpod: Any) -> None:
    runpod.emulator.set_fault("mode", "A")
    runpod.emulator.set_fault("ssh_after_s", 100)
    pod, seen = runpod.make_pod(), []
    for _ in range(11):
        shown = runpod.get_pod(pod["id"])
        seen.append((shown["status"], shown["ssh"]["direct"] is not None))
        runpod.emulator.advance(10)

    assert list(dict.fromkeys(seen)) == [
        ("PROVISIONING", False),
        ("STARTING", False),
        ("RUNNING", False),
        ("RUNNING", True),
    ]


@pytest.mark.parametrize(("knob", "status"), [("exits_after_s", "EXITED"), ("error_after_s", "ERROR")])
def test_a_pod_fails_when_it_was_told_to(runpod: Any, knob: str, status: str) -> None:
    runpod.emulator.set_fault(knob, 30, count=1)
    pod = runpod.make_pod()
    assert runpod.get_pod(pod["id"])["status"] == "RUNNING"

    runpod.emulator.advance(31)

    shown = runpod.get_pod(pod["id"])
    assert (shown["status"], shown["ssh"]["direct"], shown["runtime"]) == (status, None, None)
    assert "start" in shown["actions"]


@pytest.mark.parametrize("event", ["exit", "error", "delete"])
def test_a_pod_can_be_struck_at_any_time(runpod: Any, event: str) -> None:
    pod = runpod.make_pod()

    runpod.emulator.strike(pod["id"], event)

    assert runpod.emulator.machines()[0].status == {"exit": "EXITED", "error": "ERROR", "delete": "TERMINATED"}[event]


def test_delete_500_but_done_and_delete_500(runpod: Any) -> None:
    pod = runpod.make_pod()
    runpod.emulator.set_fault("delete_500", count=1)
    assert runpod.http.delete(f"/pods/{pod['id']}").status_code == 500
    assert len(runpod.emulator.live_machines()) == 1

    runpod.emulator.set_fault("delete_500_but_done", count=1)
    assert runpod.http.delete(f"/pods/{pod['id']}").status_code == 500
    assert runpod.emulator.live_machines() == []
    assert runpod.http.delete(f"/pods/{pod['id']}").status_code == 404


def test_delete_lag_keeps_the_pod_listed_and_billed(runpod: Any) -> None:
    runpod.emulator.set_fault("delete_lag_s", 60)
    pod = runpod.make_pod()
    assert runpod.http.delete(f"/pods/{pod['id']}").status_code == 204

    runpod.emulator.advance(50)
    assert len(runpod.http.get("/pods").json()["pods"]) == 1
    assert runpod.http.delete(f"/pods/{pod['id']}").status_code == 204
    runpod.emulator.advance(20)
    assert runpod.http.get("/pods").json()["pods"] == []
    assert runpod.emulator.machines()[0].billed_s == pytest.approx(60, abs=2)


def test_terminated_shown_lists_a_pod_that_is_gone(runpod: Any) -> None:
    runpod.emulator.set_fault("terminated_shown_s", 30)
    pod = runpod.make_pod()
    runpod.http.delete(f"/pods/{pod['id']}")

    assert runpod.get_pod(pod["id"])["status"] == "TERMINATED" and runpod.emulator.live_machines() == []
    runpod.emulator.advance(31)
    assert runpod.http.get(f"/pods/{pod['id']}").status_code == 404


def test_list_stale_shows_who_was_there(runpod: Any) -> None:
    old = runpod.make_pod(name="old")
    runpod.emulator.advance(100)
    runpod.http.delete(f"/pods/{old['id']}")
    runpod.make_pod(name="new")
    runpod.emulator.set_fault("list_stale_s", 60)

    assert [pod["name"] for pod in runpod.http.get("/pods").json()["pods"]] == ["old"]
    runpod.emulator.advance(61)
    assert [pod["name"] for pod in runpod.http.get("/pods").json()["pods"]] == ["new"]


def test_a_start_may_find_the_host_full_or_without_gpus(runpod: Any) -> None:
    pod = runpod.make_pod()
    path = f"/pods/{pod['id']}/action"
    runpod.http.post(path, json={"action": "stop"})
    runpod.emulator.set_fault("start_host_full", count=1)
    refused = runpod.http.post(path, json={"action": "start"})
    assert (refused.status_code, refused.json()) == (400, {"error": "not enough free GPUs on the host machine"})
    runpod.emulator.set_fault("start_zero_gpu", count=1)

    started = runpod.http.post(path, json={"action": "start"}).json()

    assert (started["status"], started["gpu"]["count"]) == ("RUNNING", 0)


def test_unknown_gpu_422_and_the_count_quirk_can_be_turned(runpod: Any, make_pod_body: Any) -> None:
    runpod.emulator.set_fault("unknown_gpu_422")
    runpod.emulator.set_fault("count_quirk", False)

    assert runpod.http.post("/pods", json=make_pod_body(gpu={"id": "X", "count": 1})).status_code == 422
    assert runpod.http.post("/pods", json=make_pod_body(gpu={"id": H100})).json()["gpu"]["count"] == 1


def test_edge_checks_agent_refuses_pythons_own(runpod: Any) -> None:
    headers = {"Authorization": f"Bearer {runpod.emulator.key}", "User-Agent": "Python-urllib/3.11"}
    url = f"{runpod.emulator.base_url}/pods"

    refused = httpx.get(url, headers=headers)
    assert (refused.status_code, refused.text) == (403, "error code: 1010")
    assert refused.headers["content-type"].startswith("text/plain")
    runpod.emulator.set_fault("edge_checks_agent", False)
    assert httpx.get(url, headers=headers).status_code == 200


def test_page_cap_makes_short_pages(open_account: Any) -> None:
    account = open_account("runpod", foreign=7)
    account.emulator.set_fault("page_cap", 3)

    page = account.http.get("/pods?limit=1000").json()

    assert len(page["pods"]) == 3 and page["pagination"]["hasNextPage"]


def test_billing_lag_and_the_price_of_disk(runpod: Any) -> None:
    runpod.emulator.set_fault("disk_usd_per_gb_month", 7.3)
    runpod.make_pod(disk=100)
    runpod.emulator.advance(3600)
    runpod.emulator.set_fault("billing_lag_s", 7200)
    assert runpod.http.get("/billing/pods").json()["records"] == []
    runpod.emulator.clear_faults()

    assert sum(r["diskAmount"] for r in runpod.http.get("/billing/pods").json()["records"]) == pytest.approx(
        1, rel=0.01
    )


@pytest.mark.parametrize(("rights", "read", "delete"), [("full", 200, 204), ("graphql", 200, 403), ("none", 403, 403)])
def test_pod_key_rights(open_account: Any, make_http: Any, rights: str, read: int, delete: int) -> None:
    account = open_account("runpod", foreign=1)
    account.emulator.set_fault("pod_key_rights", rights)
    pod = account.emulator.machines(foreign=True)[0]

    with make_http(account.emulator.base_url, "rpa_pod_foreign_0") as http:
        assert http.get(f"/pods/{pod.id}").status_code == read
        assert http.delete(f"/pods/{pod.id}").status_code == delete


def test_http_error_scripts_a_route(runpod: Any, make_pod_body: Any) -> None:
    script = {"status": 502, "body": "<html>bad gateway</html>", "content_type": "text/html"}
    runpod.emulator.set_fault("http_error", script, count=2, match="^GET /v2/pods")
    assert runpod.http.get("/catalog/gpus").status_code == 200
    assert [runpod.http.get("/pods").status_code for _ in range(3)] == [502, 502, 200]
    runpod.emulator.set_fault("http_error", {"status": 504, "after_commit": True}, count=1, match="^POST")
    assert runpod.http.post("/pods", json=make_pod_body()).status_code == 504
    assert len(runpod.emulator.live_machines()) == 1
    runpod.emulator.set_fault("http_error", {"cut": True}, count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        runpod.http.get("/pods")
    started = time.monotonic()
    runpod.emulator.set_fault("http_error", {"delay_s": 0.2}, count=1)
    assert runpod.http.get("/pods").status_code == 200 and time.monotonic() - started >= 0.2


@pytest.mark.parametrize("how", ["truncate", "empty", "html", "bytes"])
def test_http_error_garbles_an_answer(runpod: Any, how: str) -> None:
    runpod.emulator.set_fault("http_error", {"garble": how}, count=1)

    with pytest.raises(ValueError):
        runpod.http.get("/pods").json()
