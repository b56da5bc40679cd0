from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import CloudError
from stacks.lifecycle.up_care import FURTHER_TRIES, UpCare, find_death
from stacks.run_folder import RunFolder
from stacks.stack_call import ResourceFailure
from tests.stacks.run_files import make_folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


def make_failure(message: str, name: str = "machine-0") -> ResourceFailure:
    return ResourceFailure(name=name, type="", operation="create", message=message)


@pytest.mark.parametrize(
    ("returncode", "failures", "death"),
    [
        (-9, [], "Pulumi itself was killed by signal 9"),
        (255, [make_failure("error reading from server: EOF", "engine-1")], "a process that worked on engine-1 died"),
        (
            255,
            [
                make_failure("no capacity"),
                make_failure(
                    'connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:3: refused"'
                ),
            ],
            "a process that worked on machine-0 died",
        ),
        (
            255,
            [make_failure("an unhandled error occurred: program exited with non-zero exit code: -1", "")],
            "the process of its program died",
        ),
    ],
)
def test_a_death_under_up_is_told_from_a_failure(returncode: int, failures: list[ResourceFailure], death: str) -> None:
    assert find_death(returncode, failures) == death


@pytest.mark.parametrize(
    "failures",
    [
        [],
        [make_failure("no offer is left to try")],
        [make_failure("the machine has failed: no reason given", "endpoint-0")],
        [make_failure("failed to dial: ssh: handshake failed: EOF", "engine-0")],
        [make_failure("an unhandled error occurred: program exited with non-zero exit code: 1", "")],
    ],
)
def test_what_failed_by_itself_is_no_death(failures: list[ResourceFailure]) -> None:
    assert find_death(255, failures) == ""
    assert find_death(0, failures) == ""


class KilledCall:
    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.process = self
        self.pid = 4711
        self.returncode = -9

    def end(self) -> None:
        self.tell("ended")


class LockedStack:
    """Tells in which order it is asked; every call of it is killed."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.told: list[str] = []
        self.is_held = is_held

    def start_up(self, parallel: int, config: Mapping[str, str]) -> Any:
        self.told.append(f"up {parallel} {config}")
        return KilledCall(self.told.append)

    def clear_stale_lock(self, complaint: str = "") -> str:
        self.told.append("unlocked")
        self.complaint = complaint
        if self.is_held:
            raise CloudError("held")
        return "removed the lock"


def make_care(folder: RunFolder, stack: Any) -> UpCare:
    return UpCare(folder, stack, parallel=32, config={}, on_call=lambda call: stack.told.append("recorded"))


def test_what_was_left_is_ended_and_the_lock_cleared_before_it_is_started_again(folder: RunFolder) -> None:
    stack = LockedStack()
    care = make_care(folder, stack)

    care.start_again(care.start(), [])

    assert stack.told == ["up 32 {}", "recorded", "ended", "unlocked", "up 32 {}", "recorded"]
    assert "was cut off (Pulumi itself was killed by signal 9)" in folder.events.read_text()


def test_it_is_started_again_only_so_often(folder: RunFolder) -> None:
    care = make_care(folder, LockedStack())
    call = care.start()
    for _ in range(FURTHER_TRIES):
        assert care.is_due_again(call, [])
        call = care.start_again(call, [])

    assert not care.is_due_again(call, [])


def test_a_lock_that_somebody_holds_ends_the_tries(folder: RunFolder) -> None:
    stack = LockedStack(is_held=True)
    care = make_care(folder, stack)

    with pytest.raises(CloudError, match="held"):
        care.start_again(care.start(), [])

    assert stack.told[-1] == "unlocked"


def make_complaint(pid: int, host: str) -> ResourceFailure:
    """What pulumi says of a lock in S3."""
    return make_failure(
        "error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the lock "
        f"file with `pulumi cancel`.\n  s3://b/.pulumi/locks/x.json: created by me@{host} (pid {pid}) at 2026-11-24T10:00:00Z",
        "",
    )


def test_the_lock_that_a_killed_up_left_in_s3_is_found_at_the_next_one_and_costs_no_try(folder: RunFolder) -> None:
    stack = LockedStack()
    care = make_care(folder, stack)
    refused = care.start_again(care.start(), [])
    left = care.tries_left
    complaint = [make_complaint(4711, socket.gethostname())]

    assert care.is_due_again(refused, complaint)
    again = care.start_again(refused, complaint)

    assert care.tries_left == left
    assert stack.complaint == complaint[0].message
    assert "was cut off (its last call's lock was still there)" in folder.events.read_text()
    again.returncode = 255
    assert not care.is_due_again(again, complaint), "a lock that cannot be cleared is not tried for ever"


@pytest.mark.parametrize(("pid", "host"), [(4712, socket.gethostname()), (4711, "laptop-of-ann")])
def test_the_lock_of_anybody_else_is_left_to_them(folder: RunFolder, pid: int, host: str) -> None:
    care = make_care(folder, LockedStack())
    refused: Any = care.start_again(care.start(), [])
    refused.returncode = 255

    assert not care.is_due_again(refused, [make_complaint(pid, host)])
