"""The pods routes of the emulated RunPod: create, list, get, change, delete, act, logs."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import msgspec
from aiohttp import web

from providers.emulators.call import Answer, Call, LineCut, Refused
from providers.emulators.clock import from_rfc3339, to_rfc3339
from providers.emulators.runpod.account import RunPodAccount
from providers.emulators.runpod.pod import ACTIONS, Pod
from providers.emulators.runpod.pod_request import check_pod, place_pod
from providers.emulators.runpod.pod_view import render_pod
from providers.emulators.runpod.problem import invalid, not_found, refuse

_LOG_POLL_S = 0.1
_KEEP_ALIVE_S = 10.0


async def create_pod(account: RunPodAccount, call: Call) -> Answer:
    body: dict[str, Any] = call.body
    name = body["name"]
    if account.faults.take("insufficient_balance_402", name):
        raise refuse(402, "Insufficient balance to deploy a pod.", fault="insufficient_balance_402")
    if account.faults.take("pool_403", name):
        raise refuse(403, "Your account cannot access the requested pool.", fault="pool_403")
    if account.faults.take("create_500", name):
        raise refuse(500, "Something went wrong. Please try again later.", fault="create_500")
    check_pod(account, body)
    place = place_pod(account, body)
    pod = account.pods.create(
        body, region=place.region, price_usd_per_hour=place.price_usd_per_hour, request=call.number
    )
    call.machine = pod.id
    if account.faults.take("create_500_after_commit", name):
        raise refuse(500, "Something went wrong. Please try again later.", fault="create_500_after_commit")
    hang_s = account.faults.take("create_hang_after_commit", name)
    if hang_s is not None:
        call.fault = "create_hang_after_commit"
        await asyncio.sleep(float(hang_s))
        raise LineCut
    return Answer(status=201, body=show(account, pod))


def list_pods(account: RunPodAccount, call: Call) -> Answer:
    stale_s = float(account.faults.take("list_stale_s", call.subject) or 0)
    moment = account.clock.now() - stale_s
    pods = [pod.as_of(moment) for pod in account.pods.list_at(moment)]
    with_members = call.query.get("includeClusterPods") == "true"
    if not account.is_september:
        return Answer(
            status=200, body={"pods": [show(account, pod) for pod in pods if with_members or not pod.cluster]}
        )
    page, has_more = cut_page(pods, call.query, cap=account.faults.take("page_cap"))
    pagination = {"nextCursor": make_cursor(page[-1], call.query) if has_more else None, "hasNextPage": has_more}
    # Members go after the cut, so a page may be short, or empty, with more to come.
    shown = [show(account, pod) for pod in page if with_members or not pod.cluster]
    return Answer(status=200, body={"pods": shown, "pagination": pagination})


def get_pod(account: RunPodAccount, call: Call) -> Answer:
    return Answer(status=200, body=show(account, find(account, call)))


def update_pod(account: RunPodAccount, call: Call) -> Answer:
    pod = find(account, call)
    refuse_member(pod)
    pod.was_touched = True
    if not {"cmd", "entrypoint"}.isdisjoint(call.body):
        pod.config.pop("args", None)
    if "args" in call.body:
        pod.config.pop("cmd", None)
        pod.config.pop("entrypoint", None)
    pod.config |= {key: value for key, value in call.body.items() if key != "templateId"}
    return Answer(status=200, body=show(account, pod))


def delete_pod(account: RunPodAccount, call: Call) -> Answer:
    pod = find(account, call)
    refuse_member(pod)
    if account.faults.take("delete_500", pod.name):
        raise refuse(500, "Something went wrong. Please try again later.", fault="delete_500")
    pod.was_touched = True
    account.pods.delete(pod)
    if account.faults.take("delete_500_but_done", pod.name):
        raise refuse(500, "Something went wrong. Please try again later.", fault="delete_500_but_done")
    return Answer(status=204)


def act_on_pod(account: RunPodAccount, call: Call) -> Answer:
    pod = find(account, call)
    refuse_member(pod)
    action = call.body["action"]
    if action not in ACTIONS[pod.status]:
        raise refuse(409, f"action '{action}' is not allowed while the pod is {pod.status}")
    if pod.config.get("locked") and action in ("stop", "restart"):
        raise refuse(409, "the pod is locked")
    pod.was_touched = True
    if action == "terminate":
        return delete_pod(account, call)
    if action in ("stop", "restart"):
        account.pods.exit(pod)
    if action == "start":
        refuse_start(account, call, pod)
    if action in ("start", "restart"):
        account.pods.resume(pod)
    return Answer(status=200, body=show(account, pod))


def refuse_start(account: RunPodAccount, call: Call, pod: Pod) -> None:
    if account.faults.take("start_host_full", pod.name):
        body = {"error": "not enough free GPUs on the host machine"}
        raise Refused(Answer(status=400, body=body), fault="start_host_full", detail=body["error"])
    if account.faults.take("start_zero_gpu", pod.name):
        call.fault = "start_zero_gpu"
        pod.gpu_count = 0


async def stream_logs(account: RunPodAccount, call: Call) -> web.StreamResponse:
    """Server-sent events: the tail, then what comes, until the client hangs up."""
    pod = find(account, call)
    source, since = call.query.get("source"), call.query.get("since")
    tail = int(call.query.get("tail", "100"))
    from_moment = read_moment(call.request.headers.get("Last-Event-ID") or since)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            **account.quota.headers(call.key, account.faults.peek("quota")),
        }
    )
    await response.prepare(call.request)
    account.pods.collect_log(pod)
    lines = [line for line in pod.log if source in (None, line[1]) and line[0] > from_moment]
    sent = len(pod.log)
    quiet_s = 0.0
    pending = lines[-tail:] if tail else []
    while True:
        for moment, its_source, text in pending:
            await response.write(make_event(moment, its_source, text))
        quiet_s = 0.0 if pending else quiet_s + _LOG_POLL_S
        if quiet_s >= _KEEP_ALIVE_S:
            await response.write(b": keep-alive\n\n")
            quiet_s = 0.0
        if pod.is_gone:
            break
        await asyncio.sleep(_LOG_POLL_S)
        pending = [line for line in pod.log[sent:] if source in (None, line[1])]
        sent = len(pod.log)
    await response.write_eof()
    return response


def make_event(moment: float, source: str, line: str) -> bytes:
    stamp = to_rfc3339(moment)
    data = msgspec.json.encode({"ts": stamp, "source": source, "line": line})
    return b"id: " + stamp.encode() + b"\ndata: " + data + b"\n\n"


def read_moment(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        return from_rfc3339(text.partition("/")[0])
    except ValueError:
        raise invalid([f"query.since: '{text}' is not a time"]) from None


def show(account: RunPodAccount, pod: Pod) -> dict[str, Any]:
    return render_pod(pod, now=account.clock.now(), has_arrays=account.is_september)


def find(account: RunPodAccount, call: Call) -> Pod:
    pod = account.pods.find(call.path_value("id"))
    if pod is None:
        raise not_found()
    call.machine = pod.id
    return pod


def refuse_member(pod: Pod) -> None:
    if pod.cluster is not None:
        raise refuse(409, "the pod belongs to a cluster and is managed there")


def cut_page(pods: list[Pod], query: dict[str, str], *, cap: float | None) -> tuple[list[Pod], bool]:
    """The pods of one page, newest first, and whether there are more."""
    limit = int(query.get("limit", "1000"))
    if cap is not None:
        limit = min(limit, int(cap))
    if "cursor" in query:
        last = read_cursor(query)
        pods = [pod for pod in pods if pod.number < last]
    return pods[:limit], len(pods) > limit


def make_cursor(last: Pod, query: dict[str, str]) -> str:
    """Good only for the same parameters."""
    text = json.dumps({"last": last.number, "for": list_parameters(query)})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(query: dict[str, str]) -> int:
    cursor = query["cursor"]
    try:
        content = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if content["for"] == list_parameters(query):
            return int(content["last"])
    except (ValueError, KeyError, TypeError):
        pass
    raise invalid(["query.cursor: malformed, or made for other parameters"])


def list_parameters(query: dict[str, str]) -> list[str]:
    return sorted(f"{name}={query[name]}" for name in ("limit", "includeClusterPods") if name in query)
