"""What still holds when those who should see to it are dead: the money, and the end of an instance that was given a key."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos.account import EmulatedAccount
from tests.chaos.directed import kill, open_emulated, read_ids
from tests.chaos.engine_run import read_words
from tests.chaos.rented_job import write_rented_job
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.chaos, pytest.mark.engine, pytest.mark.timeout(150)]


@pytest.fixture
def lambda_account(workshop: Workshop) -> Iterator[EmulatedAccount]:
    yield from open_emulated("lambda", workshop)


def test_with_a_dead_life_cycle_the_dispatcher_stops_the_batch_when_its_money_is_used_up(workshop: Workshop) -> None:
    # A cent a second: 75 s of one machine, of which the last minute is for giving it back.
    dear = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 36}]}
    limits = {"max_usd": 0.75, "max_hours": 1}
    job = workshop.write_job(lines=3000, max_tokens=200, machines=dear, limits=limits)
    workshop.start("run", str(job), "--run", "poor", "--yes")
    workshop.wait_for_answers("poor", 5, timeout_s=40)

    kill(workshop, "life cycle")

    status = workshop.wait_for_end("poor", 60)
    assert (status["state"], status["exit_code"], status["released"]) == ("expired", 8, "verified")
    assert "orphan_release" in workshop.events("poor")
    assert {line["error"]["code"] for line in workshop.lines("poor", "error.jsonl")} == {"budget_exceeded"}
    assert read_ids(workshop, "poor") == sorted(f"id-{number}" for number in range(3000))
    assert 0 < json.loads((workshop.run_dir("poor") / "receipt.json").read_bytes())["usd"] <= 0.75
    workshop.wait_until_nothing_is_left()


def test_with_everything_of_ours_dead_an_instance_that_was_given_a_key_ends_itself(
    workshop: Workshop, lambda_account: EmulatedAccount
) -> None:
    job = write_rented_job(
        workshop, lambda_account, hours=25 / 3600, lines=4000, limits={"dead_man": "account_key"}, replicas=2
    )
    workshop.start("run", job, "--run", "keyed", "--yes")
    joined = workshop.run_dir("keyed") / "machines"
    workshop.wait_for("both to join", lambda: len(list(joined.glob("[0-9].json"))) == 2, timeout_s=60)
    expect_key_only_in_its_file(workshop, lambda_account)

    kill(workshop, "life cycle", "dispatcher")
    shutil.rmtree(workshop.home)

    assert len(lambda_account.live()) == 2
    workshop.wait_for("the instances to end themselves", lambda: not lambda_account.live(), 40)
    terminates = [each for each in lambda_account.emulator.history() if each.path.endswith("/terminate")]
    assert {each.user_agent for each in terminates} == {"leasehold-dead-man"}
    assert lambda_account.find_harm() == ""


def expect_key_only_in_its_file(workshop: Workshop, account: EmulatedAccount) -> None:
    """The account's key is on each instance for its login alone, and nowhere else: no argument, order, state, log."""
    key = account.emulator.key
    machines = [Path(each.folder) for each in account.emulator.live_machines()]
    kept = [path for folder in machines for path in find_files_with(key, folder)]
    assert [path.relative_to(folder) for path, folder in zip(kept, machines, strict=True)] == [
        Path("home/.leasehold/dead_man.key")
    ] * len(machines)
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert find_files_with(key, workshop.home) == []
    assert not [each for each in account.emulator.history() if key in json.dumps(each.body)]
    assert not [each for each in psutil.process_iter() if key in " ".join(read_words(each))]


def find_files_with(text: str, folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        # Files of a live machine come and go.
        with contextlib.suppress(OSError):
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(path)
    return found
