"""What an emulated Lambda account holds beside instances: SSH keys and file systems; their routes, and images and regions."""

from __future__ import annotations

from typing import Any

from providers.emulators.call import Answer, Call
from providers.emulators.clock import to_rfc3339
from providers.emulators.lambda_cloud.account import LambdaAccount
from providers.emulators.lambda_cloud.error import fail, succeed
from providers.emulators.lambda_cloud.instance import find_region
from providers.emulators.stock import load_table
from providers.keys import make_key_pair

_FAMILIES = (
    "lambda-stack-24-04",
    "lambda-stack-22-04",
    "gpu-base-24-04",
    "gpu-base-22-04",
    "ubuntu-24-04",
    "ubuntu-22-04",
)
_USER = {"id": "user_1", "email": "owner@example.com", "status": "active"}
_MAX_FILE_SYSTEMS = 24
_LIVE = ("booting", "active", "unhealthy", "terminating")


def list_keys(account: LambdaAccount, _call: Call) -> Answer:
    return succeed(list(account.keys.values()))


def add_key(account: LambdaAccount, call: Call) -> Answer:
    name = call.body["name"]
    if any(key["name"] == name for key in account.keys.values()):
        raise fail("global/invalid-parameters", "SSH key name must be unique.")
    public = call.body.get("public_key")
    private = None
    if public is None:
        pair = make_key_pair()
        public, private = pair.public, pair.private
    elif not public.startswith(("ssh-", "ecdsa-", "sk-")):
        raise fail("global/invalid-parameters", "The public key is not valid.")
    key = {"id": account.instances.make_id(), "name": name, "public_key": public}
    account.keys[key["id"]] = key
    return succeed(key if private is None else {**key, "private_key": private})


def delete_key(account: LambdaAccount, call: Call) -> Answer:
    if account.keys.pop(call.path_value("id"), None) is None:
        raise fail("global/not-found")
    return succeed({})


def list_file_systems(account: LambdaAccount, _call: Call) -> Answer:
    return succeed([show_file_system(account, row) for row in account.file_systems.values()])


def create_file_system(account: LambdaAccount, call: Call) -> Answer:
    name, region = call.body["name"], find_region(call.body["region"])
    if region is None:
        raise fail("global/invalid-parameters", f"Unknown region: {call.body['region']}")
    if any(row["name"] == name for row in account.file_systems.values()):
        raise fail("global/duplicate")
    if len(account.file_systems) >= _MAX_FILE_SYSTEMS:
        raise fail("global/quota-exceeded")
    row = {
        "id": account.instances.make_id(),
        "name": name,
        "mount_point": f"/lambda/nfs/{name}",
        "created": to_rfc3339(account.clock.now()),
        "created_by": _USER,
        "region": region,
        "bytes_used": 0,
    }
    account.file_systems[row["id"]] = row
    return succeed(show_file_system(account, row))


def delete_file_system(account: LambdaAccount, call: Call) -> Answer:
    row = account.file_systems.get(call.path_value("id"))
    if row is None:
        raise fail("global/object-does-not-exist", "Filesystem was not found.")
    if is_in_use(account, row):
        raise fail("filesystems/filesystem-in-use")
    del account.file_systems[row["id"]]
    return succeed({"deleted_ids": [row["id"]]})


def show_file_system(account: LambdaAccount, row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "is_in_use": is_in_use(account, row)}


def is_in_use(account: LambdaAccount, row: dict[str, Any]) -> bool:
    """Also a while after the last instance is gone."""
    release_s = float(account.faults.peek("file_system_release_s") or 0)
    return any(
        instance.status in _LIVE or (instance.terminated_at or 0) + release_s > account.clock.now()
        for instance in account.instances.instances.values()
        if row["name"] in instance.file_system_names
    )


def take_file_systems(
    account: LambdaAccount, body: dict[str, Any], region: str
) -> tuple[list[str], list[dict[str, str]]]:
    """Names and mounts for a launch; the mounts win over the names."""
    rows = account.file_systems
    wanted = body.get("file_system_mounts") or []
    if wanted:
        found = [rows.get(mount["file_system_id"]) for mount in wanted]
    else:
        names = body.get("file_system_names", [])
        found = [next((row for row in rows.values() if row["name"] == name), None) for name in names]
    chosen = [row for row in found if row is not None]
    if len(chosen) < len(found):
        status = 404 if account.faults.take("launch_not_found_404") else 400
        raise fail("global/object-does-not-exist", "File system does not exist.", status=status, suggestion="Check it.")
    if any(row["region"]["name"] != region for row in chosen):
        raise fail("instance-operations/launch/file-system-in-wrong-region")
    mounts = wanted or [{"mount_point": row["mount_point"], "file_system_id": row["id"]} for row in chosen]
    return [row["name"] for row in chosen], mounts


def list_regions(_account: LambdaAccount, _call: Call) -> Answer:
    return succeed(load_table("lambda_stock")["regions"])


def list_images(_account: LambdaAccount, _call: Call) -> Answer:
    return succeed(make_images())


def list_firewall_rules(_account: LambdaAccount, _call: Call) -> Answer:
    ssh = {"protocol": "tcp", "port_range": [22, 22], "source_network": "0.0.0.0/0", "description": "Allow SSH"}
    ping = {"protocol": "icmp", "source_network": "0.0.0.0/0", "description": "Allow ICMP"}
    return succeed([ssh, ping])


def find_image_problem(account: LambdaAccount, body: dict[str, Any]) -> None:
    """Raise what an unknown image of a launch gets."""
    image = body.get("image")
    if image is None:
        return
    known = {part for row in make_images() for part in (row["id"], row["family"])}
    if image.get("id", image.get("family")) not in known:
        status = 404 if account.faults.take("launch_not_found_404") else 400
        raise fail(
            "global/object-does-not-exist", "Image does not exist.", status=status, suggestion="Check the image."
        )


def make_images() -> list[dict[str, Any]]:
    """One row for each family and region, and arm64 ones where there are such machines."""
    moment = "2026-06-01T00:00:00.000Z"
    return [
        {
            "id": f"image-{family}-{architecture}-{region['name']}",
            "created_time": moment,
            "updated_time": moment,
            "name": family,
            "description": family,
            "family": family,
            "version": "24.4.1",
            "architecture": architecture,
            "region": region,
        }
        for family in _FAMILIES
        for region in load_table("lambda_stock")["regions"]
        for architecture in ("x86_64", "arm64")
    ]
