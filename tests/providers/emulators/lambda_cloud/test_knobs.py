"""Every fault knob of the emulated Lambda Cloud has its effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.emulators.knobs import LAMBDA_KNOBS

pytestmark = pytest.mark.wire

KIND = "gpu_1x_h100_sxm5"
LAUNCH = "/instance-operations/launch"
BODY = {"region_name": "us-west-3", "instance_type_name": KIND, "ssh_key_names": ["key"], "name": "job-1"}
CAPACITY = "instance-operations/launch/insufficient-capacity"

ROUTES = Path(__file__).with_name("test_routes.py")
MACHINES = Path(__file__).parents[1] / "machines" / "test_machines.py"


def test_every_knob_is_tried_in_a_test() -> None:
    tried = "".join(path.read_text() for path in (Path(__file__), ROUTES, MACHINES))
    shared = {"http_error"}  # tried on the other cloud

    assert [knob.name for knob in LAMBDA_KNOBS if f'"{knob.name}"' not in tried and knob.name not in shared] == []


@pytest.mark.parametrize(
    ("knob", "status", "code"),
    [
        ("launch_500", 500, "global/internal-error"),
        ("provider_unavailable", 503, "provider/internal-unavailable"),
        ("account_inactive", 403, "global/account-inactive"),
        ("key_revoked", 401, "global/invalid-api-key"),
        ("capacity_race", 400, CAPACITY),
        ("sold_out", 400, CAPACITY),
        ("rate_limit_now", 429, "global/rate-limited"),
        ("api_down", 503, None),
    ],
)
def test_a_refused_launch_makes_nothing_and_the_next_one_works(
    lambda_: Any, knob: str, status: int, code: str | None
) -> None:
    lambda_.add_key()
    lambda_.emulator.set_fault(knob, count=1)

    refused = lambda_.http.post(LAUNCH, json=BODY)

    assert refused.status_code == status
    assert code is None or refused.json()["error"]["code"] == code
    assert lambda_.emulator.machines() == [] and lambda_.emulator.history()[-1].fault == knob
    assert lambda_.http.post(LAUNCH, json=BODY).status_code == 200


def test_launch_500_after_commit_makes_the_instance(lambda_: Any) -> None:
    lambda_.add_key()
    lambda_.emulator.set_fault("launch_500_after_commit", count=1)

    assert lambda_.http.post(LAUNCH, json=BODY).status_code == 500
    assert [row["name"] for row in lambda_.list_instances()] == ["job-1"]


def test_launch_timeout_after_commit_makes_the_instance_and_answers_nothing(lambda_: Any) -> None:
    lambda_.add_key()
    lambda_.emulator.set_fault("launch_timeout_after_commit", 60, count=1)

    with pytest.raises(httpx.ReadTimeout):
        lambda_.http.post(LAUNCH, json=BODY, timeout=0.3)
    assert len(lambda_.emulator.live_machines()) == 1


def test_get_404_after_launch_hides_it_from_get_and_visible_after_from_everything(lambda_: Any) -> None:
    lambda_.emulator.set_fault("get_404_after_launch_s", 20, count=1)
    first = lambda_.launch(name="first")
    assert lambda_.http.get(f"/instances/{first}").status_code == 404
    assert [row["id"] for row in lambda_.list_instances()] == [first]
    lambda_.emulator.set_fault("visible_after_s", 20, count=1)
    second = lambda_.launch(name="second")
    assert second not in [row["id"] for row in lambda_.list_instances()]

    lambda_.emulator.advance(21)
    assert lambda_.get_instance(first)["name"] == "first"
    assert [row["id"] for row in lambda_.list_instances()] == [first, second]


def test_unhealthy_comes_and_may_go_and_is_billed(lambda_: Any) -> None:
    lambda_.emulator.set_fault("active_after_s", 50)
    lambda_.emulator.set_fault("unhealthy_at_s", 100)
    lambda_.emulator.set_fault("unhealthy_for_s", 60)
    instance_id = lambda_.launch()
    seen = []
    for seconds in (60, 50, 60):
        lambda_.emulator.advance(seconds)
        seen.append(lambda_.get_instance(instance_id)["status"])

    assert seen == ["active", "unhealthy", "active"]
    assert lambda_.emulator.machines()[0].billed_s == pytest.approx(120, abs=60)


def test_preempted_at_ends_the_instance_and_its_bill(lambda_: Any) -> None:
    lambda_.emulator.set_fault("preempted_at_s", 300)
    instance_id = lambda_.launch()

    lambda_.emulator.advance(301)

    assert lambda_.get_instance(instance_id)["status"] == "preempted"
    assert lambda_.emulator.live_machines() == []


def test_boot_stuck_and_ip_late(lambda_: Any) -> None:
    lambda_.emulator.set_fault("boot_stuck", match="^stuck")
    lambda_.emulator.set_fault("ip_late", match="^late")
    lambda_.emulator.set_fault("ip_after_s", 5)
    lambda_.emulator.set_fault("ssh_after_active_s", -10)
    stuck, late, fine = (lambda_.launch(name=name) for name in ("stuck", "late", "fine"))

    lambda_.emulator.advance(6)
    assert "ip" in lambda_.get_instance(fine)
    lambda_.emulator.advance(243)
    assert lambda_.get_instance(stuck)["status"] == "booting" and "ip" not in lambda_.get_instance(stuck)
    lambda_.emulator.set_fault("ip_late", None, match="^late")
    assert lambda_.get_instance(late)["status"] == "active"
    lambda_.emulator.advance(61)
    assert "ip" in lambda_.get_instance(late)


def test_eight_gpus_take_longer_unless_a_time_is_set(lambda_: Any) -> None:
    slow = lambda_.launch(instance_type_name="gpu_8x_h100_sxm5", region_name="us-south-1")
    lambda_.emulator.advance(590)
    assert lambda_.get_instance(slow)["status"] == "booting"
    lambda_.emulator.advance(920)

    assert lambda_.get_instance(slow)["status"] == "active"


def test_capacity_lies_in_both_ways(lambda_: Any) -> None:
    lambda_.add_key()

    def regions() -> list[str]:
        kind = lambda_.http.get("/instance-types").json()["data"][KIND]
        return [region["name"] for region in kind["regions_with_capacity_available"]]

    lambda_.emulator.set_fault("capacity_lies", "hides")
    assert regions() == [] and lambda_.http.post(LAUNCH, json=BODY).status_code == 200
    lambda_.emulator.set_fault("capacity_lies", "boasts")
    assert "us-south-1" in regions()
    assert lambda_.http.post(LAUNCH, json=BODY | {"region_name": "us-south-1"}).json()["error"]["code"] == CAPACITY


def test_region_invalid_parameters_and_launch_not_found_404(lambda_: Any) -> None:
    lambda_.add_key()
    lambda_.emulator.set_fault("region_invalid_parameters")
    lambda_.emulator.set_fault("launch_not_found_404")

    full = lambda_.http.post(LAUNCH, json=BODY | {"region_name": "us-south-1"})
    assert full.json()["error"]["code"] == "global/invalid-parameters"
    assert lambda_.http.post(LAUNCH, json=BODY | {"ssh_key_names": ["x"]}).status_code == 404


def test_instance_quota(lambda_: Any) -> None:
    lambda_.emulator.set_fault("instance_quota", 1)
    lambda_.launch()

    assert lambda_.http.post(LAUNCH, json=BODY).json()["error"]["code"] == "global/quota-exceeded"


def test_terminate_500_but_done(lambda_: Any) -> None:
    instance_id = lambda_.launch()
    lambda_.emulator.set_fault("terminate_500_but_done", count=1)

    assert lambda_.terminate(instance_id).status_code == 500
    assert lambda_.get_instance(instance_id)["status"] == "terminating"


@pytest.mark.parametrize(("way", "status", "ended"), [("all", 404, False), ("partial", 200, True)])
def test_terminate_404_mixed(lambda_: Any, way: str, status: int, ended: bool) -> None:
    lambda_.emulator.set_fault("terminate_404_mixed", way)
    instance_id = lambda_.launch()

    assert lambda_.terminate(instance_id, "0" * 32).status_code == status
    assert (lambda_.get_instance(instance_id)["status"] == "terminating") == ended


def test_terminate_refused_booting_until_it_is_active(lambda_: Any) -> None:
    lambda_.emulator.set_fault("terminate_refused_booting")
    instance_id = lambda_.launch()
    assert lambda_.get_instance(instance_id)["actions"]["terminate"]["reason_code"] == "vm-has-not-launched"
    assert lambda_.terminate(instance_id).status_code == 400
    lambda_.emulator.advance(250)

    assert lambda_.terminate(instance_id).status_code == 200


def test_how_long_terminating_and_terminated_are_shown(lambda_: Any) -> None:
    lambda_.emulator.set_fault("terminating_s", 100)
    lambda_.emulator.set_fault("terminated_shown_s", 0)
    instance_id = lambda_.launch()
    lambda_.terminate(instance_id)
    lambda_.emulator.advance(90)
    assert lambda_.get_instance(instance_id)["status"] == "terminating"
    lambda_.emulator.advance(20)

    assert lambda_.list_instances() == []


def test_page_token_on_instances(lambda_: Any) -> None:
    ids = [lambda_.launch(name=f"n{number}") for number in range(3)]
    lambda_.emulator.set_fault("page_token_on_instances", 2)

    first = lambda_.http.get("/instances").json()
    second = lambda_.http.get("/instances", params={"page_token": first["page_token"]}).json()

    assert [row["id"] for row in first["data"] + second["data"]] == ids
    assert "page_token" not in second


def test_file_system_release(lambda_: Any) -> None:
    lambda_.emulator.set_fault("file_system_release_s", 0)
    made = lambda_.http.post("/filesystems", json={"name": "cache", "region": "us-west-3"}).json()["data"]
    lambda_.terminate(lambda_.launch(file_system_names=["cache"]))
    lambda_.emulator.advance(30)

    assert lambda_.http.delete(f"/filesystems/{made['id']}").status_code == 200


def test_list_stale_shows_who_was_there(lambda_: Any) -> None:
    lambda_.launch()
    lambda_.emulator.set_fault("list_stale_s", 60)
    assert lambda_.list_instances() == []
    lambda_.emulator.advance(61)

    assert len(lambda_.list_instances()) == 1


@pytest.mark.parametrize("event", ["unhealthy", "active", "preempted", "delete"])
def test_an_instance_can_be_struck_at_any_time(lambda_: Any, event: str) -> None:
    instance_id = lambda_.launch()

    lambda_.emulator.strike(instance_id, event)

    assert lambda_.get_instance(instance_id)["status"] == event.replace("delete", "terminating")


def test_the_pace_of_requests_and_launches(open_account: Any) -> None:
    account = open_account("lambda")
    account.emulator.set_fault("request_burst", 3)
    assert [account.http.get("/regions").status_code for _ in range(4)] == [200, 200, 200, 429]
    account.emulator.set_fault("request_interval_s", 0)
    account.add_key()
    assert account.http.post(LAUNCH, json=BODY).status_code == 200
    assert account.http.post(LAUNCH, json=BODY).status_code == 429
    account.emulator.advance(12)
    assert account.http.post(LAUNCH, json=BODY).status_code == 200

    account.emulator.set_fault("launch_interval_s", 0)
    assert account.http.post(LAUNCH, json=BODY).status_code == 200


@pytest.mark.parametrize(
    ("kind", "content_type", "words"),
    [
        ("json", "application/json", "rate-limited"),
        ("html", "text/html", "<html>"),
        ("text", "text/plain", "banned"),
        ("empty", "", ""),
    ],
)
def test_a_429_has_one_of_four_bodies_and_may_tell_how_long(
    lambda_: Any, kind: str, content_type: str, words: str
) -> None:
    lambda_.emulator.set_fault("rate_limit_body", kind)
    lambda_.emulator.set_fault("rate_limit_now")

    silent = lambda_.http.get("/regions")
    lambda_.emulator.set_fault("rate_limit_retry_after", 7)
    telling = lambda_.http.get("/regions")

    assert silent.status_code == 429 and words in silent.text
    assert silent.headers.get("content-type", "").startswith(content_type)
    assert ("retry-after" in silent.headers, telling.headers["retry-after"]) == (False, "7")
