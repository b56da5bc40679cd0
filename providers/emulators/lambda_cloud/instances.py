"""The instance routes of the emulated Lambda: types, launch, list, get, rename, restart, terminate."""

from __future__ import annotations

import asyncio
from typing import Any

from providers.emulators.call import Answer, Call, LineCut
from providers.emulators.lambda_cloud.account import LambdaAccount
from providers.emulators.lambda_cloud.cloud_init import MAX_USER_DATA, UserData, parse_user_data
from providers.emulators.lambda_cloud.error import fail, succeed
from providers.emulators.lambda_cloud.instance import Instance, find_kind, find_region, render_instance, render_kind
from providers.emulators.lambda_cloud.objects import find_image_problem, take_file_systems
from providers.emulators.stock import load_table


def list_types(account: LambdaAccount, _call: Call) -> Answer:
    data = {
        kind["name"]: {
            "instance_type": render_kind(kind),
            "regions_with_capacity_available": list_regions_with_stock(account, kind),
        }
        for kind in load_table("lambda_stock")["types"]
    }
    return succeed(data)


def list_regions_with_stock(account: LambdaAccount, kind: dict[str, Any]) -> list[dict[str, str]]:
    """What the catalogue says, which knobs may make a lie."""
    shown = []
    for name in account.instances.stock.regions(kind["name"], ""):
        subject = f"{kind['name']} {name}"
        lie = account.faults.peek("capacity_lies", subject)
        is_there = account.instances.stock.free(kind["name"], "", name) > 0
        is_listed = (is_there or lie == "boasts" or account.faults.peek("capacity_race", subject)) and lie != "hides"
        if is_listed and not account.faults.peek("sold_out", subject):
            region = find_region(name)
            assert region is not None
            shown.append(region)
    return shown


async def launch(account: LambdaAccount, call: Call) -> Answer:
    body: dict[str, Any] = call.body
    name = body.get("name", "")
    if account.faults.take("provider_unavailable", name):
        raise fail("provider/internal-unavailable", fault="provider_unavailable")
    if account.faults.take("launch_500", name):
        raise fail("global/internal-error", fault="launch_500")
    key = find_launch_key(account, body)
    kind = find_launch_kind(account, body)
    region = find_region(body["region_name"])
    if region is None:
        raise fail("global/invalid-parameters", f"Unknown region: {body['region_name']}")
    find_image_problem(account, body)
    user_data = read_user_data(body)
    names, mounts = take_file_systems(account, body, region["name"])
    take_place(account, kind, region["name"], name)
    instance = Instance(
        id=account.instances.make_id(),
        name=body.get("name"),
        hostname=body.get("hostname") or "lambda-host",
        kind=kind,
        region=region,
        key_names=[key["name"]],
        file_system_names=names,
        mounts=mounts,
        tags=body.get("tags", []),
        created_at=account.clock.now(),
        made_by_request=call.number,
    )
    account.instances.launch(instance, public_key=key["public_key"], user_data=user_data)
    call.machine = instance.id
    return await answer_launch(account, call, instance)


async def answer_launch(account: LambdaAccount, call: Call, instance: Instance) -> Answer:
    """The answer, which may be lost although the instance is made."""
    name = instance.name or ""
    if account.faults.take("launch_500_after_commit", name):
        raise fail("global/internal-error", fault="launch_500_after_commit")
    hang_s = account.faults.take("launch_timeout_after_commit", name)
    if hang_s is not None:
        call.fault = "launch_timeout_after_commit"
        await asyncio.sleep(float(hang_s))
        raise LineCut
    return succeed({"instance_ids": [instance.id]})


def find_launch_key(account: LambdaAccount, body: dict[str, Any]) -> dict[str, str]:
    names = body["ssh_key_names"]
    if len(names) != 1:
        raise fail("global/invalid-parameters", "Exactly one SSH key must be specified.")
    key = next((key for key in account.keys.values() if key["name"] == names[0]), None)
    if key is None:
        raise launch_not_found(account, f"SSH key '{names[0]}' does not exist.")
    return key


def find_launch_kind(account: LambdaAccount, body: dict[str, Any]) -> dict[str, Any]:
    kind = find_kind(body["instance_type_name"])
    if kind is None:
        raise launch_not_found(account, f"Instance type '{body['instance_type_name']}' does not exist.")
    return kind


def launch_not_found(account: LambdaAccount, message: str) -> Exception:
    """400 or 404: the document lists both."""
    status = 404 if account.faults.take("launch_not_found_404") else 400
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


def take_place(account: LambdaAccount, kind: dict[str, Any], region: str, name: str) -> None:
    """Take stock; raises the refusals for quota and capacity."""
    quota = account.faults.peek("instance_quota", name)
    if quota is not None and account.instances.count_live() >= quota:
        raise fail("global/quota-exceeded")
    subject = f"{kind['name']} {region} {name}"
    fault = next((knob for knob in ("capacity_race", "sold_out") if account.faults.take(knob, subject)), "")
    if fault or account.instances.stock.take(kind["name"], "", [region], 1) is None:
        if account.faults.take("region_invalid_parameters", subject):
            raise fail(
                "global/invalid-parameters", f"Region {region} is not available.", fault="region_invalid_parameters"
            )
        raise fail("instance-operations/launch/insufficient-capacity", fault=fault)


def list_instances(account: LambdaAccount, call: Call) -> Answer:
    stale_s = float(account.faults.take("list_stale_s", call.subject) or 0)
    now = account.clock.now()
    moment = now - stale_s
    shown = [render_instance(each.as_of(moment), now) for each in account.instances.list_at(moment)]
    if call.query.get("cluster_id"):
        shown = []
    size = account.faults.peek("page_token_on_instances")
    if size is None:
        return succeed(shown)
    call.fault = "page_token_on_instances"
    start = int(call.query.get("page_token", "0"))
    end = start + int(size)
    more = {"page_token": str(end)} if end < len(shown) else {}
    return Answer(status=200, body={"data": shown[start:end], **more})


def get_instance(account: LambdaAccount, call: Call) -> Answer:
    instance = find(account, call)
    if instance.gettable_at > account.clock.now():
        raise fail("global/object-does-not-exist", fault="get_404_after_launch_s")
    return succeed(render_instance(instance, account.clock.now()))


def rename_instance(account: LambdaAccount, call: Call) -> Answer:
    instance = find(account, call)
    instance.was_touched = True
    instance.name = call.body.get("name", instance.name)
    return succeed(render_instance(instance, account.clock.now()))


def restart(account: LambdaAccount, call: Call) -> Answer:
    found = [account.instances.find(instance_id) for instance_id in call.body["instance_ids"]]
    instances = [instance for instance in found if instance is not None]
    if len(instances) < len(found) or not found:
        raise fail("global/object-does-not-exist")
    now = account.clock.now()
    if any(instance.status == "booting" or instance.restarting_until > now for instance in instances):
        raise fail("global/conflict")
    for instance in instances:
        account.instances.restart(instance)
    return succeed({"restarted_instances": [render_instance(instance, now) for instance in instances]})


def terminate(account: LambdaAccount, call: Call) -> Answer:
    ids: list[str] = call.body["instance_ids"]
    if not ids:
        raise fail("global/invalid-parameters", "instance_ids must not be empty.")
    found = [instance for wanted in ids if (instance := account.instances.find(wanted)) is not None]
    call.machine = " ".join(instance.id for instance in found)
    if len(found) < len(ids) and (not found or account.faults.take("terminate_404_mixed") == "all"):
        raise fail("global/object-does-not-exist")
    if any(instance.terminate_refused and instance.status == "booting" for instance in found):
        raise fail("global/invalid-parameters", "The instance has not launched yet.", fault="terminate_refused_booting")
    for instance in found:
        account.instances.terminate(instance)
    spoiled = {account.faults.take("terminate_500_but_done", instance.name or "") for instance in found}
    if True in spoiled:
        raise fail("global/internal-error", fault="terminate_500_but_done")
    now = account.clock.now()
    return succeed({"terminated_instances": [render_instance(instance, now) for instance in found]})


def find(account: LambdaAccount, call: Call) -> Instance:
    instance = account.instances.find(call.path_value("id"))
    if instance is None:
        raise fail("global/object-does-not-exist")
    call.machine = instance.id
    return instance
