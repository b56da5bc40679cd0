"""GET /v2/billing/pods of the emulated RunPod: what the meters say, in buckets of time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.emulators.call import Answer, Call
from providers.emulators.clock import from_rfc3339, to_rfc3339
from providers.emulators.runpod.account import RunPodAccount
from providers.emulators.runpod.pod import Pod
from providers.emulators.runpod.problem import invalid, refuse

_DEFAULT_BUCKETS = 30
_BUCKET_S = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400, "year": 365 * 86_400}
_ITEMS = ("gpu", "cpu", "disk")


def list_billing(account: RunPodAccount, call: Call) -> Answer:
    now = account.clock.now() - float(account.faults.take("billing_lag_s") or 0)
    bucket = call.query.get("bucketSize", "day")
    start, end = read_range(call.query, bucket, now)
    pod_id = call.query.get("podId")
    pods = [pod for pod in account.pods.pods.values() if pod_id in (None, pod.id)]
    records = [
        record
        for bucket_start, bucket_end in list_buckets(start, end, bucket)
        for pod in pods
        if (record := make_record(pod, bucket_start, bucket_end, now)) is not None
    ]
    names = ("totalAmount", *(f"{item}Amount" for item in _ITEMS))
    metadata = {
        "query": {"startTime": to_rfc3339(start), "endTime": to_rfc3339(end), "bucketSize": bucket, "podId": pod_id},
        "recordCount": len(records),
        "uniquePodCount": len({record["podId"] for record in records}),
        "totals": {name: sum(record[name] for record in records) for name in names},
    }
    return Answer(status=200, body={"records": records, "metadata": metadata})


def read_range(query: dict[str, str], bucket: str, now: float) -> tuple[float, float]:
    if ("startTime" in query) != ("endTime" in query):
        raise refuse(400, "startTime and endTime must be given together")
    if "startTime" not in query:
        count = int(query.get("lastN", _DEFAULT_BUCKETS))
        return now - count * _BUCKET_S[bucket], now
    try:
        start, end = from_rfc3339(query["startTime"]), from_rfc3339(query["endTime"])
    except ValueError:
        raise invalid(["query.startTime, query.endTime: not a time"]) from None
    if start >= end:
        raise refuse(400, "startTime must be before endTime")
    return start, end


def list_buckets(start: float, end: float, bucket: str) -> Iterator[tuple[float, float]]:
    """Whole buckets that the range touches; they start at round times."""
    moment = datetime.fromtimestamp(start, UTC).replace(minute=0, second=0, microsecond=0)
    if bucket != "hour":
        moment = moment.replace(hour=0)
    step = timedelta(seconds=_BUCKET_S[bucket])
    while moment.timestamp() < end:
        yield moment.timestamp(), (moment + step).timestamp()
        moment += step


def make_record(pod: Pod, start: float, end: float, now: float) -> dict[str, Any] | None:
    """None for a bucket in which nothing was billed."""
    if pod.is_foreign:
        return None
    amounts = {f"{item}Amount": pod.meter.usd_between(item, start, min(end, now), now) for item in _ITEMS}  # type: ignore[arg-type]
    total = sum(amounts.values())
    if total <= 0:
        return None
    times = {"startTime": to_rfc3339(start), "endTime": to_rfc3339(end)}
    return {**times, "podId": pod.id, "totalAmount": total, **amounts}
