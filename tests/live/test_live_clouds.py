"""A tiny job on each real cloud. Rents for money: only with LEASEHOLD_LIVE_USD, a cap in USD, and the clouds' keys set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.live_run import KEY_VARIABLES, LINES, LiveRun, read_cap_usd, require_key

pytestmark = [pytest.mark.live, pytest.mark.timeout(7200)]


@pytest.fixture(params=sorted(KEY_VARIABLES))
def live_run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveRun]:
    """A run that may cost its cloud's share of the cap; whatever the test comes to, it is reaped and that is checked."""
    cap_usd = read_cap_usd(os.environ)
    require_key(request.param, os.environ)
    run = LiveRun(request.param, tmp_path, round(cap_usd / len(KEY_VARIABLES), 2))
    try:
        yield run
    finally:
        run.reap()


def test_a_tiny_job_is_answered_and_everything_is_given_back(live_run: LiveRun) -> None:
    done = live_run.run()

    assert done.returncode == 0, done.stderr
    answers = live_run.workshop.lines(live_run.name)
    assert sorted(line["custom_id"] for line in answers) == sorted(f"id-{number}" for number in range(LINES))
    assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in answers)
    assert all(line["response"]["body"]["usage"]["completion_tokens"] > 0 for line in answers)
    assert live_run.workshop.lines(live_run.name, "error.jsonl") == []
    status = live_run.workshop.status(live_run.name)
    assert (status["state"], status["released"], status["exit_code"]) == ("completed", "verified", 0)
    assert live_run.list_machines() == [] and live_run.list_keys() == []
    receipt = live_run.receipt()
    assert receipt["released"] and 0 < receipt["usd"] <= live_run.max_usd
    assert receipt["machines"] and all(machine["proven_gone"] for machine in receipt["machines"])
