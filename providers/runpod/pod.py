"""Reading RunPod's answers: pods, problems, billing records and log events. Pure; called by runpod.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from providers.cloud import Endpoint, MachineState, Phase
from providers.http.reply import (
    GarbledAnswer,
    Reply,
    clean,
    get,
    parse_json,
    read_number,
    read_text,
    read_texts,
    require_id,
    require_list,
)

NAME = "runpod"
_PHASES: Mapping[str, Phase] = {
    "PROVISIONING": "starting",
    "STARTING": "starting",
    "RUNNING": "starting",
    "EXITED": "failed",
    "ERROR": "failed",
}
_NO_CAPACITY = re.compile(
    r"no longer any instances available|no instances (are )?(currently )?available|instances currently available"
    r"|does not have the resources|could not find any pods|not enough free gpus",
    re.IGNORECASE,
)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a listing; cursor is "" on the last."""

    pods: tuple[MachineState, ...]
    cursor: str


def read_words(reply: Reply) -> str:
    """The service's own words in a refusal: problem+json, one of its older shapes, or plain text."""
    error = get(reply.data, "error")
    words = [
        read_text(get(reply.data, "detail")) or read_text(error) or read_text(get(error, "message")),
        *read_texts(get(reply.data, "errors"))[:5],
    ]
    said = "; ".join(word for word in words if word)
    return said or read_text(get(reply.data, "title")) or ("" if reply.data is not None else reply.text[:2000])


def is_no_capacity(reply: Reply) -> bool:
    """A refused create that another offer may not meet; the service has no code for it, only prose."""
    return reply.status in (400, 409) and _NO_CAPACITY.search(read_words(reply)) is not None


def is_missing_arrays(reply: Reply) -> bool:
    """A 422 of an older service that does not know `entrypoint` and `cmd`."""
    return reply.status == 422 and re.search(r"\b(cmd|entrypoint)\b", reply.text) is not None


def read_created_id(reply: Reply) -> Reply:
    """A reply to a create, checked to name an id when it is a success."""
    if reply.status < 300:
        require_id(get(reply.data, "id"))
    return reply


def read_page(reply: Reply) -> Page:
    """One page of `GET /pods`; a page that cannot be read whole is garbled, since a hidden pod costs money."""
    pods = tuple(state for pod in require_list(reply.data, "pods") if (state := read_pod(pod)) is not None)
    pagination = get(reply.data, "pagination")
    cursor = read_text(get(pagination, "nextCursor"))
    if get(pagination, "hasNextPage") is True and not cursor:
        raise GarbledAnswer("there is a next page but no cursor to it")
    return Page(pods=pods, cursor=cursor if get(pagination, "hasNextPage") is not False else "")


def read_pod(pod: Any) -> MachineState | None:
    """A pod as a machine's state; None when it is deleted for good."""
    if not isinstance(pod, dict):
        raise GarbledAnswer("a pod is not an object")
    status = read_text(pod.get("status")).upper()
    if status == "TERMINATED":
        return None
    endpoint = _read_endpoint(get(pod, "ssh", "direct"))
    phase = _PHASES.get(status, "ending" if "TERMINAT" in status or "DELET" in status else "starting")
    if phase == "starting" and endpoint is not None:
        phase = "ready"
    return MachineState(
        cloud=NAME,
        id=require_id(pod.get("id")),
        name=read_text(pod.get("name")),
        phase=phase,
        endpoint=endpoint if phase == "ready" else None,
        price_usd_per_hour=max(0.0, read_number(pod.get("cost")) or 0.0),
        region=read_text(pod.get("dataCenterId")),
        created_at=read_time(pod.get("createdAt")),
        detail=clean(status, at_most=60),
    )


def _read_endpoint(direct: Any) -> Endpoint | None:
    host = read_text(get(direct, "host"))
    port = read_number(get(direct, "port")) or 0
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,253}", host) is None or not 1 <= port <= 65535:
        return None
    user = read_text(get(direct, "username"))
    return Endpoint(host=host, port=int(port), user=user if re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user) else "root")


def read_time(value: Any) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0 for everything else."""
    try:
        moment = datetime.fromisoformat(read_text(value))
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        return 0.0


def format_time(moment: float) -> str:
    """Seconds since 1970 as RFC 3339 in whole seconds."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_billed_usd(reply: Reply, pod_id: str) -> float | None:
    """What a pod's billing records add up to; None without any record of it."""
    records = [each for each in require_list(reply.data, "records") if read_text(get(each, "podId")) in ("", pod_id)]
    amounts = [read_number(get(record, "totalAmount")) for record in records]
    known = [amount for amount in amounts if amount is not None]
    return round(sum(known), 6) if known else None


def read_log(lines: Sequence[str], *, at_most: int) -> str:
    """The text of a pod's log events, newest last, cut at the front to at_most bytes."""
    texts = [_read_event(line.removeprefix("data:").strip()) for line in lines if line.startswith("data:")]
    data = "".join(f"{text}\n" for text in texts).encode("utf-8", "replace")
    return data[-at_most:].decode("utf-8", "ignore")


def _read_event(text: str) -> str:
    event = parse_json(text)
    if not isinstance(event, dict):
        return clean(text, at_most=2000)
    words = [read_text(event.get("ts")), read_text(event.get("source")), read_text(event.get("line")).rstrip()]
    return " ".join(word for word in words if word)
