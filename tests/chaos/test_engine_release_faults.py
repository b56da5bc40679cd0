"""Faults of a cloud while a run gives its machines back, through the real engine, among 500 machines of others: in the end
none of ours is left, the proof is no earlier than that, and nobody else's was touched."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.chaos.account import SPEED, EmulatedAccount
from tests.chaos.rented_job import write_rented_job
from tests.chaos.scenario import CloudKind
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.chaos, pytest.mark.engine, pytest.mark.timeout(300)]

RUN = "faulty"
FOREIGN = 500
MACHINES = 2
LINES = 300
# Of the cloud's clock.
LAG_S = 60.0
# Real seconds: time stamps of ours and of the emulator are taken one after the other.
_TOLERANCE_S = 0.1


Test = TypeVar("Test", bound=Callable[..., None])


def usually_on(cloud: CloudKind) -> Callable[[Test], Test]:
    """One cloud in the usual suite, both under --chaos: a fault is seen through by the sweep, which is the same for both."""

    def mark(test: Test) -> Test:
        test.usual_cloud = cloud  # type: ignore[attr-defined]
        return test

    return mark


@pytest.fixture
def rented(rented_cloud: CloudKind, workshop: Workshop) -> Iterator[EmulatedAccount]:
    account = EmulatedAccount(rented_cloud, workshop, strangers=FOREIGN)
    if rented_cloud == "lambda":
        # Two to four minutes to boot show nothing here.
        account.emulator.set_fault("active_after_s", 60)
    yield account
    account.close()


@pytest.fixture
def run(workshop: Workshop, rented: EmulatedAccount) -> subprocess.Popen[bytes]:
    """A run that is at work, with both machines made."""
    job = write_rented_job(workshop, rented, hours=1, lines=LINES, replicas=MACHINES)
    started = workshop.start("run", job, "--run", RUN, "--yes", FORCE_COLOR="1")
    workshop.wait_for_answers(RUN, 1, timeout_s=60)
    workshop.wait_for("all machines", lambda: len(rented.live()) == MACHINES, timeout_s=60)
    return started


@usually_on("lambda")
def test_deletes_that_answer_500_and_lag_a_minute_are_seen_through(
    workshop: Workshop, rented: EmulatedAccount, run: subprocess.Popen[bytes]
) -> None:
    failing, lagging = {
        "runpod": ("delete_500_but_done", "delete_lag_s"),
        "lambda": ("terminate_500_but_done", "terminating_s"),
    }[rented.name]
    rented.emulator.set_fault(failing, True, count=MACHINES)
    rented.emulator.set_fault(lagging, LAG_S)

    assert run.wait(60) == 0

    expect_proven(workshop, rented)
    assert count_faults(rented, failing) == MACHINES
    asked_at = [each.time for each in rented.emulator.history() if each.fault == failing]
    assert min(each.ended_at or 0.0 for each in rented.emulator.machines()) >= min(asked_at) + LAG_S


@usually_on("runpod")
def test_stale_listings_and_rate_limits_make_no_proof_too_early(
    workshop: Workshop, rented: EmulatedAccount, run: subprocess.Popen[bytes]
) -> None:
    rented.emulator.set_fault("list_stale_s", LAG_S)
    rented.emulator.set_fault("rate_limit_now", True, count=5, match="DELETE|terminate|^GET")

    assert run.wait(60) == 0

    expect_proven(workshop, rented, shown_for_s=LAG_S / SPEED)
    assert count_faults(rented, "rate_limit_now") == 5


@usually_on("lambda")
def test_a_cloud_that_is_down_while_it_is_asked_to_end_machines_is_waited_for(
    workshop: Workshop, rented: EmulatedAccount, run: subprocess.Popen[bytes], outage_s: float
) -> None:
    workshop.wait_for("the revocation", lambda: '"lease_revoked"' in workshop.events(RUN), timeout_s=60)
    rented.emulator.set_fault("api_down")
    began = time.monotonic()
    # On a loaded computer it takes a while until it is asked at all.
    while time.monotonic() < began + outage_s or count_faults(rented, "api_down") < MACHINES:
        assert time.monotonic() < began + outage_s + 60, "nobody asked the cloud"
        assert run.poll() is None, "it ended while nobody could tell what was left"
        assert workshop.status(RUN)["released"] != "verified"
        time.sleep(0.1)
    rented.emulator.set_fault("api_down", None)

    assert run.wait(60) == 0

    expect_proven(workshop, rented)


@usually_on("runpod")
def test_a_key_revoked_midway_is_exit_12_and_release_finishes_when_it_is_back(
    workshop: Workshop, rented: EmulatedAccount, run: subprocess.Popen[bytes]
) -> None:
    prices = {each.id: each.price_usd_per_hour for each in rented.emulator.live_machines()}
    workshop.wait_for("the revocation", lambda: '"lease_revoked"' in workshop.events(RUN), timeout_s=60)
    rented.emulator.set_fault("key_revoked")

    assert run.wait(90) == 12
    assert (workshop.status(RUN)["released"], workshop.status(RUN)["exit_code"]) == ("unverified", 12)
    typed = (workshop.folder / "typed.log").read_text()
    expect_notice(typed, rented, prices)
    again = workshop.inv("release", RUN, FORCE_COLOR="1")
    assert again.returncode == 12
    expect_notice(again.stderr, rented, prices)

    rented.emulator.set_fault("key_revoked", None)
    assert len(rented.live()) == MACHINES
    done = workshop.inv("release", RUN)

    assert (done.returncode, "verified" in done.stdout) == (0, True), done.stderr
    expect_proven(workshop, rented)


def expect_notice(text: str, rented: EmulatedAccount, prices: dict[str, float]) -> None:
    """The last line is red and says what may live, at which price, what to run and where to look."""
    page = {"runpod": "https://console.runpod.io/pods", "lambda": "https://cloud.lambda.ai/instances"}[rented.name]
    paragraph = text.rstrip().rsplit("\n\n", 1)[-1]
    assert paragraph.startswith("\x1b[1;31m"), repr(paragraph)
    last = " ".join(re.sub(r"\x1b\[[\d;]*m", "", paragraph).split())
    wanted = ["RELEASE NOT VERIFIED", f"./inv release {RUN}", page]
    wanted += [f"{id} at {price:.2f} USD/h" for id, price in prices.items()]
    assert [each for each in wanted if each not in last] == [], last


def expect_proven(workshop: Workshop, rented: EmulatedAccount, *, shown_for_s: float = 0.0) -> None:
    """None of ours left, each made once, all of the others' as they were; the proof not before ours had ended, nor while
    listings still showed them."""
    machines = rented.emulator.machines()
    assert rented.live() == []
    assert len(machines) == MACHINES
    assert workshop.status(RUN)["released"] == "verified"
    lease = json.loads((workshop.run_dir(RUN) / "lease.json").read_bytes())
    assert lease["state"] == "released"
    (proof,) = lease["proof"]["clouds"]
    ended_at = max(to_real_time(rented, each.ended_at or 0.0) for each in machines)
    assert proof["cloud"] == rented.name
    assert ended_at + shown_for_s - _TOLERANCE_S < proof["listings"][0] < proof["listings"][1]
    assert rented.list_keys() == []
    assert len(rented.emulator.machines(foreign=True)) == FOREIGN
    assert rented.find_harm() == ""
    assert read_ids(workshop.run_dir(RUN)) == sorted(f"id-{number}" for number in range(LINES))
    workshop.wait_until_nothing_is_left()


def read_ids(folder: Path) -> list[str]:
    paths = [path for path in (folder / "output.jsonl", folder / "error.jsonl") if path.exists()]
    return sorted(json.loads(line)["custom_id"] for path in paths for line in path.read_text().splitlines())


def to_real_time(rented: EmulatedAccount, moment: float) -> float:
    """A moment of the cloud's clock on ours."""
    last: Any = rented.emulator.history()[-1]
    return float(last.real_time + (moment - last.time) / SPEED)


def count_faults(rented: EmulatedAccount, name: str) -> int:
    return sum(each.fault == name for each in rented.emulator.history())
