"""`./inv release` of a run whose lease record was torn, lost, or written by a newer Leasehold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.directed import kill
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.chaos, pytest.mark.engine, pytest.mark.timeout(150)]


@pytest.fixture
def lease(workshop: Workshop) -> Path:
    """The record of a run whose machines live and whose processes are dead."""
    workshop.start("run", str(workshop.write_job(lines=3000, max_tokens=200)), "--run", "torn")
    workshop.wait_for_answers("torn", 5, timeout_s=60)
    kill(workshop, "life cycle", "dispatcher")
    return workshop.run_dir("torn") / "lease.json"


@pytest.mark.parametrize("flags", [[], ["--force"]], ids=["release", "force"])
def test_a_torn_record_costs_no_machine(workshop: Workshop, lease: Path, flags: list[str]) -> None:
    lease.write_bytes(lease.read_bytes()[:40])

    done = workshop.inv("release", "torn", *flags)

    assert (done.returncode, workshop.machines()) == (0, []), done.stderr
    assert "Traceback" not in done.stderr
    assert (json.loads(lease.read_bytes())["state"], workshop.status("torn")["released"]) == ("released", "verified")
    workshop.wait_until_nothing_is_left()


def test_a_record_of_a_newer_version_is_left_to_it_and_said(workshop: Workshop, lease: Path) -> None:
    known = lease.read_bytes()
    newer = json.dumps({**json.loads(known), "version": 2}).encode()
    lease.write_bytes(newer)

    refused = workshop.inv("release", "torn")

    assert refused.returncode == 12, refused.stderr
    assert "written by a newer Leasehold" in refused.stderr and "RELEASE NOT VERIFIED" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert lease.read_bytes() == newer

    lease.write_bytes(known)
    done = workshop.inv("release", "torn")
    assert (done.returncode, workshop.machines()) == (0, []), done.stderr
    workshop.wait_until_nothing_is_left()
