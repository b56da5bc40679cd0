"""Reading Lambda's answers: instances, keys, error codes. Pure; called by lambda_cloud.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from providers.cloud import Endpoint, MachineState, Phase
from providers.http.reply import (
    GarbledAnswer,
    Reply,
    clean,
    get,
    read_list,
    read_number,
    read_text,
    require_id,
    require_list,
)
from providers.lambda_cloud.boot import TAG_NAME

NAME = "lambda"
USER = "ubuntu"
_GONE = ("terminated", "preempted")
_PHASES: Mapping[str, Phase] = {"booting": "starting", "active": "ready", "unhealthy": "starting"}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of instances; token is "" on the last, and always in the documented API."""

    instances: tuple[MachineState, ...]
    token: str


class Key(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    public_key: str


def read_code(reply: Reply) -> str:
    """The error's code, the only part that the vendor promises not to change."""
    return read_text(get(reply.data, "error", "code"))


def read_words(reply: Reply) -> str:
    error = get(reply.data, "error")
    words = [read_code(reply), read_text(get(error, "message")), read_text(get(error, "suggestion"))]
    said = "; ".join(word for word in words if word)
    return said or read_text(error) or ("" if reply.data is not None else reply.text[:2000])


def is_no_capacity(reply: Reply) -> bool:
    """A refused launch that another offer may not meet; an invalid region is one that has just closed."""
    if reply.status >= 500:
        return False
    code = read_code(reply)
    message = read_text(get(reply.data, "error", "message"))
    return code.endswith("insufficient-capacity") or (
        code == "global/invalid-parameters" and re.search(r"\bregion", message, re.IGNORECASE) is not None
    )


def is_upstream_failure(reply: Reply) -> bool:
    """A refusal that is a failure in disguise, after which an instance may exist."""
    code = read_code(reply)
    return code.startswith("provider/") or code.endswith("/internal-error")


def is_gone(reply: Reply) -> bool:
    return reply.status == 404 or read_code(reply) in ("global/object-does-not-exist", "global/not-found")


def read_launched_id(reply: Reply) -> Reply:
    """A reply to a launch, checked to name an id when it is a success, and to be a plain refusal when it is not."""
    if reply.status < 300:
        ids = require_list(reply.data, "data", "instance_ids")
        require_id(ids[0] if ids else None)
    elif is_upstream_failure(reply):
        raise GarbledAnswer(read_code(reply))
    return reply


def read_page(reply: Reply, *, trust_ssh_port: bool) -> Page:
    """The instances that are not gone; a list that cannot be read whole is garbled, since a hidden one costs money."""
    found = (read_instance(each, trust_ssh_port=trust_ssh_port) for each in require_list(reply.data, "data"))
    return Page(
        instances=tuple(state for state in found if state is not None), token=read_text(get(reply.data, "page_token"))
    )


def read_instance(instance: Any, *, trust_ssh_port: bool) -> MachineState | None:
    """An instance as a machine's state; None when it is gone. ssh_port is an emulator's, believed only on loopback."""
    if not isinstance(instance, dict):
        raise GarbledAnswer("an instance is not an object")
    status = read_text(instance.get("status")).lower()
    if status in _GONE:
        return None
    endpoint = _read_endpoint(instance, trust_ssh_port=trust_ssh_port)
    phase = _PHASES.get(status, "ending" if "terminat" in status else "starting")
    if phase == "ready" and endpoint is None:
        phase = "starting"
    cents = read_number(get(instance, "instance_type", "price_cents_per_hour")) or 0.0
    return MachineState(
        cloud=NAME,
        id=require_id(instance.get("id")),
        name=_read_tag(instance, TAG_NAME) or read_text(instance.get("name")),
        phase=phase,
        endpoint=None if phase == "ending" else endpoint,
        price_usd_per_hour=round(max(0.0, cents) / 100, 4),
        region=read_text(get(instance, "region", "name")),
        detail=clean(status, at_most=60),
    )


def read_keys(reply: Reply) -> list[Key]:
    """The account's SSH keys; entries that cannot be read are left out, since they cannot be ours."""
    rows = require_list(reply.data, "data")
    keys = [
        Key(
            id=read_text(get(row, "id")), name=read_text(get(row, "name")), public_key=read_text(get(row, "public_key"))
        )
        for row in rows
    ]
    return [key for key in keys if key.id and key.name]


def find_key(keys: Sequence[Key], name: str, public_key: str) -> Key | None:
    """The key of that name, else any with the same public key."""
    same = [key for key in keys if is_same_key(key.public_key, public_key)]
    return next((key for key in same if key.name == name), same[0] if same else None)


def is_same_key(one: str, other: str) -> bool:
    """Whether two public keys are equal but for their comments."""
    return one.split()[:2] == other.split()[:2] and len(one.split()) >= 2


def _read_endpoint(instance: Mapping[str, Any], *, trust_ssh_port: bool) -> Endpoint | None:
    host = read_text(instance.get("ip"))
    try:
        ip_address(host)
    except ValueError:
        return None
    port = read_number(instance.get("ssh_port")) if trust_ssh_port else None
    return Endpoint(host=host, port=int(port) if port and 1 <= port <= 65535 else 22, user=USER)


def _read_tag(instance: Mapping[str, Any], key: str) -> str:
    tags = (tag for tag in read_list(instance.get("tags")) if get(tag, "key") == key)
    return next((read_text(get(tag, "value")) for tag in tags), "")
