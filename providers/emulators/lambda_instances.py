"""The instance routes of the emulated Lambda: types, launch, list, get, rename, restart, terminate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from providers.emulators.call import Answer, Call, LineCut
from providers.emulators.cloud_init import MAX_USER_DATA, UserData, parse_user_data
from providers.emulators.instance import Instance, find_kind, find_region, render_instance, render_kind
from providers.emulators.lambda_account import find_image_problem, take_file_systems
from providers.emulators.lambda_error import fail, succeed
from providers.emulators.stock import load_table

if TYPE_CHECKING:
    from providers.emulators.lambda_server import LambdaServer


def list_types(server: LambdaServer, _call: Call) -> Answer:
    data = {
        kind["name"]: {
            "instance_type": render_kind(kind),
            "regions_with_capacity_available": list_regions_with_stock(server, kind),
        }
        for kind in load_table("lambda_stock")["types"]
    }
    return succeed(data)


def list_regions_with_stock(server: LambdaServer, kind: dict[str, Any]) -> list[dict[str, str]]:
    """What the catalogue says, which knobs may make a lie."""
    shown = []
    for name in server.instances.stock.regions(kind["name"], ""):
        subject = f"{kind['name']} {name}"
        lie = server.faults.peek("capacity_lies", subject)
        is_there = server.instances.stock.free(kind["name"], "", name) > 0
        is_listed = (is_there or lie == "boasts" or server.faults.peek("capacity_race", subject)) and lie != "hides"
        if is_listed and not server.faults.peek("sold_out", subject):
            region = find_region(name)
            assert region is not None
            shown.append(region)
    return shown


async def launch(server: LambdaServer, call: Call) -> Answer:
    body: dict[str, Any] = call.body
    name = body.get("name", "")
    if server.faults.take("provider_unavailable", name):
        raise fail("provider/internal-unavailable", fault="provider_unavailable")
    if server.faults.take("launch_500", name):
        raise fail("global/internal-error", fault="launch_500")
    key = find_launch_key(server, body)
    kind = find_launch_kind(server, body)
    region = find_region(body["region_name"])
    if region is None:
        raise fail("global/invalid-parameters", f"Unknown region: {body['region_name']}")
    find_image_problem(server, body)
    user_data = read_user_data(body)
    names, mounts = take_file_systems(server, body, region["name"])
    take_place(server, kind, region["name"], name)
    instance = Instance(
        id=server.instances.make_id(),
        name=body.get("name"),
        hostname=body.get("hostname") or "lambda-host",
        kind=kind,
        region=region,
        key_names=[key["name"]],
        file_system_names=names,
        mounts=mounts,
        tags=body.get("tags", []),
        created_at=server.clock.now(),
        made_by_request=call.number,
    )
    server.instances.launch(instance, public_key=key["public_key"], user_data=user_data)
    call.machine = instance.id
    return await answer_launch(server, call, instance)


async def answer_launch(server: LambdaServer, call: Call, instance: Instance) -> Answer:
    """The answer, which may be lost although the instance is made."""
    name = instance.name or ""
    if server.faults.take("launch_500_after_commit", name):
        raise fail("global/internal-error", fault="launch_500_after_commit")
    hang_s = server.faults.take("launch_timeout_after_commit", name)
    if hang_s is not None:
        call.fault = "launch_timeout_after_commit"
        await asyncio.sleep(float(hang_s))
        raise LineCut
    return succeed({"instance_ids": [instance.id]})


def find_launch_key(server: LambdaServer, body: dict[str, Any]) -> dict[str, str]:
    names = body["ssh_key_names"]
    if len(names) != 1:
        raise fail("global/invalid-parameters", "Exactly one SSH key must be specified.")
    key = next((key for key in server.account.keys.values() if key["name"] == names[0]), None)
    if key is None:
        raise launch_not_found(server, f"SSH key '{names[0]}' does not exist.")
    return key


def find_launch_kind(server: LambdaServer, body: dict[str, Any]) -> dict[str, Any]:
    kind = find_kind(body["instance_type_name"])
    if kind is None:
        raise launch_not_found(server, f"Instance type '{body['instance_type_name']}' does not exist.")
    return kind


def launch_not_found(server: LambdaServer, message: str) -> Exception:
    """400 or 404: the document lists both."""
    status = 404 if server.faults.take("launch_not_found_404") else 400
    suggestion = "Check the name, then try again."
    return fail("global/object-does-not-exist", message, status=status, suggestion=suggestion)


def read_user_data(body: dict[str, Any]) -> UserData:
    text = body.get("user_data", "")
    if len(text.encode()) > MAX_USER_DATA:
        raise fail("global/invalid-parameters", "user_data is too large.")
    try:
        return parse_user_data(text)
    except ValueError:
        # The service takes any text; cloud-init on the machine then ignores it.
        return UserData()


def take_place(server: LambdaServer, kind: dict[str, Any], region: str, name: str) -> None:
    """Take stock; raises the refusals for quota and capacity."""
    quota = server.faults.peek("instance_quota", name)
    if quota is not None and server.instances.count_live() >= quota:
        raise fail("global/quota-exceeded")
    subject = f"{kind['name']} {region} {name}"
    fault = next((knob for knob in ("capacity_race", "sold_out") if server.faults.take(knob, subject)), "")
    if fault or server.instances.stock.take(kind["name"], "", [region], 1) is None:
        if server.faults.take("region_invalid_parameters", subject):
            raise fail(
                "global/invalid-parameters", f"Region {region} is not available.", fault="region_invalid_parameters"
            )
        raise fail("instance-operations/launch/insufficient-capacity", fault=fault)


def list_instances(server: LambdaServer, call: Call) -> Answer:
    stale_s = float(server.faults.take("list_stale_s", call.subject) or 0)
    now = server.clock.now()
    moment = now - stale_s
    shown = [render_instance(each.as_of(moment), now) for each in server.instances.list_at(moment)]
    if call.query.get("cluster_id"):
        shown = []
    size = server.faults.peek("page_token_on_instances")
    if size is None:
        return succeed(shown)
    call.fault = "page_token_on_instances"
    start = int(call.query.get("page_token", "0"))
    end = start + int(size)
    more = {"page_token": str(end)} if end < len(shown) else {}
    return Answer(status=200, body={"data": shown[start:end], **more})


def get_instance(server: LambdaServer, call: Call) -> Answer:
    instance = find(server, call)
    if instance.gettable_at > server.clock.now():
        raise fail("global/object-does-not-exist", fault="get_404_after_launch_s")
    return succeed(render_instance(instance, server.clock.now()))


def rename_instance(server: LambdaServer, call: Call) -> Answer:
    instance = find(server, call)
    instance.was_touched = True
    instance.name = call.body.get("name", instance.name)
    return succeed(render_instance(instance, server.clock.now()))


def restart(server: LambdaServer, call: Call) -> Answer:
    found = [server.instances.find(instance_id) for instance_id in call.body["instance_ids"]]
    instances = [instance for instance in found if instance is not None]
    if len(instances) < len(found) or not found:
        raise fail("global/object-does-not-exist")
    now = server.clock.now()
    if any(instance.status == "booting" or instance.restarting_until > now for instance in instances):
        raise fail("global/conflict")
    for instance in instances:
        server.instances.restart(instance)
    return succeed({"restarted_instances": [render_instance(instance, now) for instance in instances]})


def terminate(server: LambdaServer, call: Call) -> Answer:
    ids: list[str] = call.body["instance_ids"]
    if not ids:
        raise fail("global/invalid-parameters", "instance_ids must not be empty.")
    found = [instance for wanted in ids if (instance := server.instances.find(wanted)) is not None]
    call.machine = " ".join(instance.id for instance in found)
    if len(found) < len(ids) and (not found or server.faults.take("terminate_404_mixed") == "all"):
        raise fail("global/object-does-not-exist")
    if any(instance.terminate_refused and instance.status == "booting" for instance in found):
        raise fail("global/invalid-parameters", "The instance has not launched yet.", fault="terminate_refused_booting")
    for instance in found:
        server.instances.terminate(instance)
    spoiled = {server.faults.take("terminate_500_but_done", instance.name or "") for instance in found}
    if True in spoiled:
        raise fail("global/internal-error", fault="terminate_500_but_done")
    now = server.clock.now()
    return succeed({"terminated_instances": [render_instance(instance, now) for instance in found]})


def find(server: LambdaServer, call: Call) -> Instance:
    instance = server.instances.find(call.path_value("id"))
    if instance is None:
        raise fail("global/object-does-not-exist")
    call.machine = instance.id
    return instance
