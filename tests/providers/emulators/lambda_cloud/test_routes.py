"""The emulated Lambda Cloud as its document and the reports of live calls describe it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.wire

KIND = "gpu_1x_h100_sxm5"
LAUNCH = "/instance-operations/launch"


def test_an_instance_goes_from_launch_to_gone(lambda_: Any) -> None:
    instance_id = lambda_.launch(
        tags=[{"key": "launch-key", "value": "1"}], user_data="#cloud-config\n", hostname="host-1"
    )
    early = lambda_.get_instance(instance_id)
    assert early["status"] == "booting" and "ip" not in early and "user_data" not in early
    lambda_.emulator.advance(32)
    assert lambda_.get_instance(instance_id)["ip"] == "127.0.0.1"
    assert lambda_.get_instance(instance_id)["status"] == "booting"
    lambda_.emulator.advance(215)
    active = lambda_.get_instance(instance_id)
    assert active["status"] == "active" and active["tags"] == [{"key": "launch-key", "value": "1"}]
    assert active["ssh_port"] == lambda_.emulator.machines()[0].ssh_port
    assert active["is_reserved"] is False and "file_system_mounts" not in active
    ended = lambda_.terminate(instance_id).json()["data"]["terminated_instances"]
    assert [(row["id"], row["status"]) for row in ended] == [(instance_id, "terminating")]
    assert lambda_.terminate(instance_id).status_code == 200
    lambda_.emulator.advance(26)
    assert lambda_.list_instances()[0]["status"] == "terminated"
    lambda_.emulator.advance(31)
    assert lambda_.list_instances() == []
    assert lambda_.terminate(instance_id).json()["error"]["code"] == "global/object-does-not-exist"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"instance_type_name": "gpu_9x_none"}, "global/object-does-not-exist"),
        ({"ssh_key_names": ["nobody"]}, "global/object-does-not-exist"),
        ({"ssh_key_names": ["key", "key"]}, "global/invalid-parameters"),
        ({"ssh_key_names": []}, "global/invalid-parameters"),
        ({"region_name": "moon-1"}, "global/invalid-parameters"),
        ({"hostname": "Bad_Host"}, "global/invalid-parameters"),
        ({"name": "x" * 65}, "global/invalid-parameters"),
        ({"tags": [{"key": "Bad", "value": "x"}]}, "global/invalid-parameters"),
        ({"image": {"family": "windows"}}, "global/object-does-not-exist"),
        ({"file_system_names": ["none"]}, "global/object-does-not-exist"),
        ({"file_system_mounts": [{"mount_point": "/etc", "file_system_id": "1"}]}, "global/invalid-parameters"),
        ({"user_data": "x" * 1_000_001}, "global/invalid-parameters"),
        ({"region_name": "us-south-1"}, "instance-operations/launch/insufficient-capacity"),
        ({"region_name": "asia-northeast-1"}, "instance-operations/launch/insufficient-capacity"),
    ],
)
def test_a_launch_that_cannot_be_is_a_400_with_a_code(lambda_: Any, changes: dict[str, Any], code: str) -> None:
    lambda_.add_key()
    body = {"region_name": "us-west-3", "instance_type_name": KIND, "ssh_key_names": ["key"], "name": "n"}

    answer = lambda_.http.post(LAUNCH, json=body | changes)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert lambda_.emulator.machines() == []


def test_a_field_of_older_clients_is_let_by(lambda_: Any) -> None:
    assert lambda_.launch(quantity=1)


def test_types_tell_cents_and_regions_with_stock_and_launches_use_it_up(lambda_: Any) -> None:
    lambda_.emulator.set_stock(KIND, "us-west-3", 1)

    def regions() -> list[str]:
        kind = lambda_.http.get("/instance-types").json()["data"][KIND]
        assert kind["instance_type"]["price_cents_per_hour"] == 429
        return [region["name"] for region in kind["regions_with_capacity_available"]]

    assert regions() == ["us-west-3", "us-east-1"]
    instance_id = lambda_.launch()
    assert regions() == ["us-east-1"]
    lambda_.terminate(instance_id)
    lambda_.emulator.advance(30)
    assert regions() == ["us-west-3", "us-east-1"]


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({}, 401, "No API key was provided."),
        ({"Authorization": "Bearer wrong"}, 401, "API key was invalid, expired, or deleted."),
    ],
)
def test_a_wrong_key_is_told_in_two_texts(lambda_: Any, headers: dict[str, str], status: int, message: str) -> None:
    answer = httpx.get(f"{lambda_.emulator.base_url}/instances", headers=headers)

    assert answer.status_code == status
    assert (answer.json()["error"]["code"], answer.json()["error"]["message"]) == ("global/invalid-api-key", message)


def test_the_key_may_come_as_basic_user_name(lambda_: Any) -> None:
    assert httpx.get(f"{lambda_.emulator.base_url}/instances", auth=(lambda_.emulator.key, "")).status_code == 200


def test_keys_are_unique_by_name_and_can_be_made_by_the_service(lambda_: Any) -> None:
    lambda_.add_key()
    again = lambda_.http.post("/ssh-keys", json={"name": "key", "public_key": "ssh-ed25519 AAAA"})
    assert again.status_code == 400 and "unique" in again.text
    made = lambda_.http.post("/ssh-keys", json={"name": "made"}).json()["data"]
    assert "PRIVATE KEY" in made["private_key"]
    listed = lambda_.http.get("/ssh-keys").json()["data"]
    assert [(key["name"], "private_key" in key) for key in listed] == [("key", False), ("made", False)]

    assert lambda_.http.delete(f"/ssh-keys/{made['id']}").json() == {"data": {}}
    assert lambda_.http.delete(f"/ssh-keys/{made['id']}").status_code == 404


def test_file_systems_have_two_spellings_and_stay_in_use_for_a_while(lambda_: Any) -> None:
    http = lambda_.http
    made = http.post("/filesystems", json={"name": "cache", "region": "us-west-3"}).json()["data"]
    assert (
        http.post("/filesystems", json={"name": "cache", "region": "us-west-3"}).json()["error"]["code"]
        == "global/duplicate"
    )
    assert [row["id"] for row in http.get("/file-systems").json()["data"]] == [made["id"]]
    instance_id = lambda_.launch(file_system_names=["cache"])
    assert lambda_.get_instance(instance_id)["file_system_mounts"][0]["mount_point"] == "/lambda/nfs/cache"
    elsewhere = {
        "region_name": "us-east-1",
        "instance_type_name": KIND,
        "ssh_key_names": ["key"],
        "file_system_names": ["cache"],
    }
    assert http.post(LAUNCH, json=elsewhere).json()["error"]["code"].endswith("file-system-in-wrong-region")
    assert http.delete(f"/filesystems/{made['id']}").json()["error"]["code"] == "filesystems/filesystem-in-use"
    lambda_.terminate(instance_id)
    lambda_.emulator.advance(40)
    assert http.delete(f"/filesystems/{made['id']}").status_code == 400

    lambda_.emulator.advance(40)
    assert http.delete(f"/filesystems/{made['id']}").json() == {"data": {"deleted_ids": [made["id"]]}}


def test_a_restart_in_progress_is_a_conflict(lambda_: Any) -> None:
    instance_id = lambda_.launch()
    path = "/instance-operations/restart"
    assert lambda_.http.post(path, json={"instance_ids": [instance_id]}).status_code == 409
    lambda_.emulator.advance(250)

    assert lambda_.http.post(path, json={"instance_ids": [instance_id]}).status_code == 200
    assert lambda_.http.post(path, json={"instance_ids": [instance_id]}).json()["error"]["code"] == "global/conflict"
    assert not lambda_.get_instance(instance_id)["actions"]["restart"]["available"]


def test_an_instance_can_be_renamed_and_its_tags_cannot(lambda_: Any) -> None:
    instance_id = lambda_.launch(name="before", tags=[{"key": "kk", "value": "v"}])

    renamed = lambda_.http.post(f"/instances/{instance_id}", json={"name": "after"}).json()["data"]

    assert (renamed["name"], renamed["tags"]) == ("after", [{"key": "kk", "value": "v"}])


def test_the_bill_runs_from_active_to_terminate_in_minutes(lambda_: Any) -> None:
    lambda_.emulator.set_fault("active_after_s", 100)
    instance_id = lambda_.launch()
    lambda_.emulator.advance(90)
    assert lambda_.emulator.cost_usd() == 0
    lambda_.emulator.advance(10 + 3590)
    lambda_.terminate(instance_id)
    lambda_.emulator.advance(10_000)

    assert lambda_.emulator.cost_usd() == pytest.approx(4.29)


def test_images_regions_and_firewall_rules_keep_to_the_document(lambda_: Any) -> None:
    images = lambda_.http.get("/images").json()["data"]
    assert {"lambda-stack-24-04", "gpu-base-22-04"} <= {image["family"] for image in images}
    assert lambda_.launch(image={"id": images[0]["id"]})
    assert {"name": "us-west-3", "description": "Utah, USA"} in lambda_.http.get("/regions").json()["data"]
    assert lambda_.http.get("/firewall-rules").json()["data"][0]["port_range"] == [22, 22]
    assert lambda_.http.get("/nonsense").json()["error"]["code"] == "global/not-found"


def test_machines_of_others_are_there_and_stay_untouched(open_account: Any) -> None:
    account = open_account("lambda", foreign=5)

    assert len(account.list_instances()) == 5 and account.emulator.machines() == []
    account.terminate(account.list_instances()[0]["id"])
    assert [machine.was_touched for machine in account.emulator.machines(foreign=True)] == [True] + [False] * 4
