"""A whole run that tells others how it goes: one receiver works, one fails at first, one hangs, one is not there."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.journeys.workshop import Workshop, end_hard
from tests.stacks.notifications.hook_server import HANG, HookServer

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

SECRET = "s3cret-of-the-hook"
TOKEN = "token-in-the-path"


@pytest.fixture
def servers() -> Iterator[list[HookServer]]:
    made = [HookServer(), HookServer(500, 500, 200), HookServer(HANG)]
    yield made
    for server in made:
        server.close()


def test_a_run_out_of_money_tells_so_and_is_held_up_by_nobody(workshop: Workshop, servers: list[HookServer]) -> None:
    working, failing, hanging = servers
    dear = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 3600}]}
    notify: list[dict[str, Any]] = [
        {"type": "webhook", "url": "env:HOOK", "secret": "env:HOOK_SECRET"},
        {"type": "slack", "url": "env:SLACK", "on": ["expired"]},
        {"type": "webhook", "url": f"{hanging.url}/hook"},
        {"type": "webhook", "url": "http://127.0.0.1:9/nobody"},
    ]
    job = workshop.write_job(
        lines=600, max_tokens=24, machines=dear, limits={"max_usd": 61, "max_hours": 1}, notify=notify
    )
    secrets = {"HOOK": f"{working.url}/{TOKEN}", "SLACK": f"{failing.url}/{TOKEN}", "HOOK_SECRET": SECRET}

    done = workshop.inv("run", str(job), "--run", "broke", "--yes", "--keep", timeout_s=90, **secrets)

    assert done.returncode == 8, done.stderr
    workshop.wait_until_nothing_is_left()
    told = [(call.data["event"], call.data["percent"]) for call in working.calls]
    assert told == [("budget", 50), ("budget", 80), ("budget", 100), ("expired", 0), ("released", 0)]
    for call in working.calls:
        digest = hmac.new(SECRET.encode(), call.body, hashlib.sha256).hexdigest()
        assert call.headers["x-leasehold-signature"] == f"sha256={digest}"
    assert working.calls[-1].data["exit_code"] == 8
    assert [call.path for call in failing.calls] == [f"/{TOKEN}"] * 3
    assert "expired" in failing.calls[-1].data["text"]
    assert hanging.calls
    shown = workshop.inv("status", "broke")
    assert shown.returncode == 0
    assert "broke: budget 50 %, budget 80 %, budget 100 %, expired, released not told yet" in shown.stderr
    assert "./inv notify broke tries again" in shown.stderr
    _assert_end_was_not_held_up(workshop)
    written = [path for root in (workshop.home, workshop.cloud) for path in root.rglob("*") if path.is_file()]
    assert any(path.is_relative_to(workshop.home / "state") for path in written)
    assert [
        path for path in written if SECRET.encode() in path.read_bytes() or TOKEN.encode() in path.read_bytes()
    ] == []


def _assert_end_was_not_held_up(workshop: Workshop) -> None:
    """The run's last word follows its release at once, whatever the receivers do."""
    events = [json.loads(line) for line in workshop.events("broke").splitlines()]
    proven = max(_read_time(each["time"]) for each in events if each["source"] in ("release", "cloud", "planner"))
    ended = _read_time(workshop.status("broke")["ended_at"])
    last_told = _read_time(events[-1]["time"])
    assert abs(ended - proven) < 3
    assert last_told - ended < 10
    assert {each["event"] for each in events if each["source"] == "notifier"} == {
        "notification_sent",
        "notification_failed",
        "notification_waiting",
    }


def _read_time(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def test_when_the_life_cycle_is_killed_the_orphan_release_tells_in_its_place(
    workshop: Workshop, servers: list[HookServer]
) -> None:
    working, failing, _ = servers
    notify: list[dict[str, Any]] = [
        {"type": "webhook", "url": "env:HOOK", "secret": "env:HOOK_SECRET"},
        {"type": "webhook", "url": f"{failing.url}/hook", "on": ["released"]},
    ]
    one = {"replicas": 1, "candidates": [{"cloud": "local"}]}
    job = workshop.write_job(lines=120, max_tokens=8, notify=notify, machines=one)
    secrets = {"HOOK": f"{working.url}/{TOKEN}", "HOOK_SECRET": SECRET}
    started = workshop.inv("run", str(job), "--run", "orphan", "--detach", **secrets)
    assert started.returncode == 0, started.stderr
    workshop.wait_for_answers("orphan", 5, timeout_s=60)

    end_hard(workshop.lifecycle("orphan"))

    assert workshop.wait_for_end("orphan", timeout_s=60)["released"] == "verified"
    workshop.wait_until_nothing_is_left()
    assert [call.data["event"] for call in working.calls] == ["finished", "released"]
    assert all("x-leasehold-signature" in call.headers for call in working.calls)
    assert [call.data["event"] for call in failing.calls] == ["released"] * 3
    assert len({call.data["id"] for call in failing.calls}) == 1
