"""The reaper: from names alone, only what is past its expiry, never what it cannot read."""

from __future__ import annotations

from typing import Any

import pytest

from providers.clock import Waits
from providers.closed_cloud import ClosedCloud
from providers.cloud import Cloud
from providers.lease.reaper import EARLIEST_EXPIRY, Findings, Reaped, find_expired, reap
from schemas.errors import CredentialError
from schemas.names import make_key_name, make_machine_name
from tests.providers.scripted_cloud import START, FakeClock, KeyedScriptedCloud, ScriptedCloud

DAY_S = 86_400


def make_name(expires_in_s: float, token: str = "abcdefghijkl") -> str:
    return make_machine_name(token=token, index=0, attempt=1, expires_at=int(START + expires_in_s))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> KeyedScriptedCloud:
    return KeyedScriptedCloud("a", clock)


def find(cloud: Cloud, **options: Any) -> Findings:
    return find_expired({"a": cloud}, START, **options)


def end(findings: Findings, cloud: Cloud, clock: FakeClock) -> Reaped:
    return reap(findings, {"a": cloud}, clock=clock, on_event=lambda *_: None, waits=Waits(give_up_s=60.0))


@pytest.mark.parametrize(
    ("expires_in_s", "place"),
    [
        (-601, "expired"),
        (-30 * DAY_S, "expired"),
        (-599, "alive"),
        (0, "alive"),
        (3600, "alive"),
        (59 * DAY_S, "alive"),
        (61 * DAY_S, "left_alone"),
        (EARLIEST_EXPIRY - START - 1, "left_alone"),
    ],
)
def test_only_what_is_ten_minutes_past_a_plausible_expiry_is_expired(
    cloud: KeyedScriptedCloud, expires_in_s: float, place: str
) -> None:
    cloud.add_foreign(make_name(expires_in_s))
    cloud.keys[make_key_name(token="abcdefghijkl", expires_at=int(START + expires_in_s))] = "k"

    findings = find(cloud)

    counts = {name: len(getattr(findings, name)) for name in ("expired", "alive", "left_alone")}
    assert counts == {"expired": 0, "alive": 0, "left_alone": 0} | {place: 2}


@pytest.mark.parametrize(
    "name",
    [
        "web-1",
        "lh-abcdefghijkl-0x1",
        "lh-abcdefghijkl-0x1-T0RX80",
        "lh-abc-0x1-t0rx80",
        f"{make_name(-9999)}-copy",
        f"x{make_name(-9999)}",
        f"{make_name(-9999)}\n",
        "lh-abcdefghijkl-key-t0rx80",
        "",
    ],
)
def test_a_name_that_cannot_be_read_is_never_touched(cloud: KeyedScriptedCloud, clock: FakeClock, name: str) -> None:
    foreign = cloud.add_foreign(name)
    cloud.keys[name.replace("-key-", "-kee-")] = "k"

    findings = find(cloud)
    end(findings, cloud, clock)

    assert findings == Findings()
    assert foreign.asked == 0
    assert len(cloud.keys) == 1


def test_reaping_ends_machines_of_every_owner_then_keys_and_proves_it(
    cloud: KeyedScriptedCloud, clock: FakeClock
) -> None:
    cloud.add_foreign(make_name(-9999))
    cloud.add_foreign(make_name(-9999, "zzzzzzzzzzzz"))
    alive = cloud.add_foreign(make_name(9999, "yyyyyyyyyyyy"))
    cloud.keys[make_key_name(token="abcdefghijkl", expires_at=int(START - 9999))] = "k"
    cloud.delete_lag_s = 30

    reaped = end(find(cloud), cloud, clock)

    assert [each.kind for each in reaped.gone] == ["machine", "machine", "key"]
    assert reaped.left == ()
    assert cloud.alive == [alive]
    assert cloud.keys == {}


def test_what_does_not_go_is_left_with_its_reason(cloud: KeyedScriptedCloud, clock: FakeClock) -> None:
    cloud.add_foreign(make_name(-9999))
    cloud.delete_lag_s = 999

    reaped = end(find(cloud), cloud, clock)

    assert [each.reason for each in reaped.left] == ["it is still listed after 60 s"]


def test_a_machine_that_was_renamed_since_it_was_shown_is_left(cloud: KeyedScriptedCloud, clock: FakeClock) -> None:
    machine = cloud.add_foreign(make_name(-9999))
    findings = find(cloud)
    machine.name = "precious"

    reaped = end(findings, cloud, clock)

    assert [each.reason for each in reaped.left] == ["its name is now precious"]
    assert machine.asked == 0


def test_a_machine_that_is_gone_already_is_success(cloud: KeyedScriptedCloud, clock: FakeClock) -> None:
    machine = cloud.add_foreign(make_name(-9999))
    findings = find(cloud)
    machine.gone_at = clock.time

    assert len(end(findings, cloud, clock).gone) == 1
    assert machine.asked == 0


def test_a_rate_limit_is_waited_out_and_a_failing_cloud_reported(cloud: KeyedScriptedCloud, clock: FakeClock) -> None:
    cloud.add_foreign(make_name(-9999))
    findings = find(cloud)
    cloud.rate_limits = 2
    assert len(end(findings, cloud, clock).gone) == 1

    cloud.add_foreign(make_name(-9998))
    findings = find(cloud)
    cloud.down_until = clock.time + 999
    assert "503" in end(findings, cloud, clock).left[0].reason


def test_a_cloud_that_cannot_be_asked_is_skipped_with_its_reason_and_the_others_are_not(
    cloud: KeyedScriptedCloud,
) -> None:
    cloud.add_foreign(make_name(-9999))
    closed = ClosedCloud(CredentialError("no key is set"))

    findings = find_expired({"b": closed, "a": cloud}, START)

    assert len(findings.expired) == 1
    assert findings.skipped == {"b": "no key is set"}


@pytest.mark.parametrize(
    ("theirs", "skipped"),
    [
        (START, ""),
        (START - 299, ""),
        (None, ""),
        (START - 3600, "3600 s ahead of"),
        (START + 3600, "3600 s behind"),
    ],
)
def test_a_clock_that_is_off_reaps_nothing(cloud: KeyedScriptedCloud, theirs: float | None, skipped: str) -> None:
    cloud.add_foreign(make_name(-9999))

    findings = find(cloud, fetch_time=lambda name: theirs)

    assert len(findings.expired) == (0 if skipped else 1)
    assert skipped in findings.skipped.get("a", "")


def test_a_clock_that_says_1970_reaps_nothing(clock: FakeClock) -> None:
    cloud = ScriptedCloud("a", clock)
    cloud.add_foreign(make_name(-9999))

    findings = find_expired({"a": cloud}, 100.0)

    assert findings.expired == ()
    assert "clock is years behind" in findings.skipped["a"]
