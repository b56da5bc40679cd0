"""What the tests of chosen deaths share: finding and killing a part of a run, waiting for its moment, reading what came of it."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from stacks.run_folder import RunFolder
from stacks.runs.ledger import read_ledger
from tests.chaos.account import EmulatedAccount
from tests.chaos.engine_run import is_victim, read_words
from tests.chaos.scenario import CloudKind
from tests.chaos.verdict import find_blind_creates
from tests.journeys.workshop import Workshop, end_hard

SLOW = {"lines": 300, "max_tokens": 200}
ONE = {"replicas": 1, "candidates": [{"cloud": "local"}]}


def kill(workshop: Workshop, *victims: str) -> None:
    """kill -9 all of these at once; every one of them must be there."""
    found = {victim: find(workshop, victim) for victim in victims}
    assert all(found.values()), found
    for processes in found.values():
        for process in processes:
            end_hard(process)


def find(workshop: Workshop, victim: str) -> list[psutil.Process]:
    return [each for each in workshop.ours() if is_victim(victim, read_words(each))]


def wait_for_event(workshop: Workshop, run: str, event: str) -> None:
    workshop.wait_for(f"the event {event}", lambda: f'"{event}"' in workshop.events(run))


def read_ids(workshop: Workshop, run: str) -> list[str]:
    return sorted(line["custom_id"] for line in workshop.lines(run) + workshop.lines(run, "error.jsonl"))


def expect_each_machine_made_once(workshop: Workshop, run: str, *, machines: int) -> None:
    """One machine an index, though `up` was there more than once; a create that was killed before it was sent made none."""
    folder = workshop.run_dir(run)
    assert sorted(entry.index for entry in read_ledger(RunFolder(folder))) == list(range(machines))
    assert find_blind_creates(folder) == []


def open_emulated(cloud: CloudKind, workshop: Workshop) -> Iterator[EmulatedAccount]:
    account = EmulatedAccount(cloud, workshop)
    yield account
    account.close()
