"""What an emulated RunPod account holds beside pods: SSH keys, registry logins, network volumes, secrets; and their routes."""

from __future__ import annotations

import re
from typing import Any

from providers.emulators.call import Answer, Call
from providers.emulators.runpod.account import RunPodAccount
from providers.emulators.runpod.problem import invalid, not_found, refuse
from providers.emulators.stock import load_table

_SECRETS = "/v2/account/secrets"
_SECRET_NAME = re.compile(r"(?!RUNPOD)[A-Za-z_][\w.\-/]{0,190}")


def get_keys(account: RunPodAccount, _call: Call) -> Answer:
    return Answer(status=200, body={"keys": account.ssh_keys})


def put_keys(account: RunPodAccount, call: Call) -> Answer:
    account.ssh_keys = list(call.body["keys"])
    return get_keys(account, call)


def list_registries(account: RunPodAccount, _call: Call) -> Answer:
    rows = [{"id": key, "name": name} for key, name in account.registries.items()]
    return Answer(status=200, body={"registries": rows})


def create_registry(account: RunPodAccount, call: Call) -> Answer:
    key = account.make_id()
    account.registries[key] = call.body["name"]
    return Answer(status=201, body={"id": key, "name": call.body["name"]})


def get_registry(account: RunPodAccount, call: Call) -> Answer:
    key = find_key(account.registries, call)
    return Answer(status=200, body={"id": key, "name": account.registries[key]})


def delete_registry(account: RunPodAccount, call: Call) -> Answer:
    key = find_key(account.registries, call)
    if any(pod.config.get("registry") == key and not pod.is_gone for pod in account.pods.pods.values()):
        raise refuse(400, "the registry is in use")
    del account.registries[key]
    return Answer(status=204)


def list_volumes(account: RunPodAccount, _call: Call) -> Answer:
    return Answer(status=200, body={"networkVolumes": list(account.volumes.values())})


def create_volume(account: RunPodAccount, call: Call) -> Answer:
    centers = [row["id"] for row in load_table("runpod_stock")["dataCenters"] if row["networkVolumeTypes"]]
    if call.body["dataCenter"] not in centers:
        raise refuse(400, f"data center without network volumes; valid ones: {', '.join(centers)}")
    key = account.make_id()
    account.volumes[key] = {"id": key, "type": "STANDARD", **call.body}
    return Answer(status=201, body=account.volumes[key])


def get_volume(account: RunPodAccount, call: Call) -> Answer:
    return Answer(status=200, body=account.volumes[find_key(account.volumes, call)])


def update_volume(account: RunPodAccount, call: Call) -> Answer:
    volume = account.volumes[find_key(account.volumes, call)]
    if call.body.get("size", volume["size"]) < volume["size"]:
        raise refuse(400, "a volume can only grow")
    volume |= call.body
    return Answer(status=200, body=volume)


def delete_volume(account: RunPodAccount, call: Call) -> Answer:
    del account.volumes[find_key(account.volumes, call)]
    return Answer(status=204)


def answer_secrets(account: RunPodAccount, call: Call) -> Answer:
    """/v2/account/secrets and /{id}: in later copies of the document than the one that ships here."""
    secrets = account.secrets
    key = call.path.removeprefix(_SECRETS).strip("/")
    if not key and call.method == "GET":
        wanted = call.query.get("name")
        return Answer(
            status=200,
            body={"secrets": [show_secret(row) for row in secrets.values() if wanted in (None, row["name"])]},
        )
    if not key and call.method == "POST":
        return create_secret(account, call)
    if key not in secrets:
        raise not_found("secret not found")
    if call.method == "DELETE":
        account.pods.secrets.pop(secrets.pop(key)["name"], None)
        return Answer(status=204)
    if call.method == "PATCH" and isinstance(call.body, dict):
        secrets[key] |= {name: value for name, value in call.body.items() if name in ("value", "description")}
        account.pods.secrets[secrets[key]["name"]] = secrets[key]["value"]
    return Answer(status=200, body=show_secret(secrets[key]))


def create_secret(account: RunPodAccount, call: Call) -> Answer:
    body = call.body
    if not isinstance(body, dict) or not isinstance(body.get("value"), str) or not isinstance(body.get("name"), str):
        raise invalid(["$: name and value must be given as strings"])
    if not _SECRET_NAME.fullmatch(body["name"]):
        raise invalid([f"$.name: '{body['name']}' is not a name for a secret"])
    if body["name"] in account.pods.secrets:
        raise refuse(409, "a secret with this name exists")
    key = account.make_id()
    account.secrets[key] = {"id": key, "description": "", **body}
    account.pods.secrets[body["name"]] = body["value"]
    return Answer(status=201, body=show_secret(account.secrets[key]))


def show_secret(secret: dict[str, str]) -> dict[str, str]:
    return {name: secret[name] for name in ("id", "name", "description")}


def find_key(rows: dict[str, Any], call: Call) -> str:
    key = call.path_value("id")
    if key not in rows:
        raise not_found("resource not found")
    return key
