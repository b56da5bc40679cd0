"""Pulumi from outside: its failures in our words, its lock, and the processes that a killed call leaves."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.errors import CloudError
from stacks.exports import render_exports
from stacks.process_mark import ProcessMark, end_session, is_alive, mark_process
from stacks.stack import Stack, make_stack_environment, prepare_project, warn_of_own_passphrase
from stacks.stack_call import ResourceFailure, StackCall
from toolchain.pulumi_cli import HOST_PYTHON

pytestmark = pytest.mark.wire

ENGINE = "urn:pulumi:t-1::leasehold::command:remote:Command::engine-0"
MACHINE = "urn:pulumi:t-1::leasehold::pulumi-python:dynamic/leasehold:Machine::machine-1"
# As the command plugin says it: the script in Go's quotes, then what the command printed.
SCRIPT = r"set -eu\nport=1\necho \"ready\": \nexit 41"


def make_error(urn: str, message: str, severity: str = "error") -> dict[str, Any]:
    return {"diagnosticEvent": {"urn": urn, "prefix": "error: ", "message": message, "severity": severity}}


def make_failed(urn: str, operation: str = "create") -> dict[str, Any]:
    kind = urn.split("::")[2]
    return {"resOpFailedEvent": {"metadata": {"op": operation, "urn": urn, "type": kind}, "status": 0, "steps": 1}}


TRACEBACK = make_error(
    "", "Program failed with an unhandled exception:\nTraceback (most recent call last):\n  File\nX: failed\n"
)


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def call_pulumi(bin_folder: Path, words: str, *events: dict[str, Any]) -> StackCall:
    """A call of a `pulumi` that does what words say, and whose engine has told these events."""
    (bin_folder / "pulumi").write_text(f"#!/bin/sh\n{words}\n")
    (bin_folder / "pulumi").chmod(0o755)
    event_log = bin_folder.parent / "up.events"
    event_log.write_text("".join(json.dumps(event) + "\n" for event in events))
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    return StackCall(["up", "--yes"], environment, bin_folder.parent, bin_folder.parent / "pulumi.log", event_log)


def find_failures(bin_folder: Path, *events: dict[str, Any], words: str = "exit 255") -> list[ResourceFailure]:
    call = call_pulumi(bin_folder, words, *events)
    call.wait(10)
    return call.failures()


def test_a_failed_command_is_told_by_its_output_and_status_without_its_script(bin_folder: Path) -> None:
    text = f'Process exited with status 41: running "{SCRIPT}":\nengine: exited\n'

    found = find_failures(bin_folder, make_error(ENGINE, text), make_failed(ENGINE))

    assert found == [
        ResourceFailure(
            name="engine-0", type="command:remote:Command", operation="create", message="engine: exited", status=41
        )
    ]


def test_output_that_looks_like_the_end_of_the_script_is_kept(bin_folder: Path) -> None:
    text = f'Process exited with status 41: running "{SCRIPT}":\nthe config has "rope_scaling":\n  null\n'

    found = find_failures(bin_folder, make_error(ENGINE, text), make_failed(ENGINE))

    assert found[0].message == 'the config has "rope_scaling":\n  null'


def test_a_local_command_says_it_in_other_words(bin_folder: Path) -> None:
    found = find_failures(bin_folder, make_error(ENGINE, f'error: exit status 3: running "{SCRIPT}":\nno'))

    assert (found[0].message, found[0].status) == ("no", 3)


def test_our_own_errors_come_through_without_pulumis_words(bin_folder: Path) -> None:
    said = "<{%reset%}>Exception calling application: no offer is left to try\n  Add candidates.<{%reset%}>\n"

    found = find_failures(bin_folder, make_error(MACHINE, said), make_failed(MACHINE))

    assert found[0].message == "no offer is left to try\n  Add candidates."
    assert (found[0].name, found[0].status) == ("machine-1", 0)


def test_the_programs_traceback_is_no_failure_beside_the_resource_that_caused_it(bin_folder: Path) -> None:
    found = find_failures(bin_folder, make_error(MACHINE, "it died"), make_failed(MACHINE), TRACEBACK)

    assert [each.message for each in found] == ["it died"]


def test_an_error_of_the_program_alone_is_told(bin_folder: Path) -> None:
    found = find_failures(bin_folder, make_error("", "the plan cannot be read\n"))

    assert [(each.name, each.message) for each in found] == [("", "the plan cannot be read")]


def test_pulumis_general_words_do_not_replace_the_programs_own(bin_folder: Path) -> None:
    general = make_error("", "an unhandled error occurred: program exited with non-zero exit code: 1\n")

    found = find_failures(bin_folder, make_error("", "HF_TOKEN is not set\n  export HF_TOKEN=...\n"), general)

    assert [each.message for each in found] == ["HF_TOKEN is not set\n  export HF_TOKEN=..."]


def test_warnings_and_torn_lines_are_no_failures(bin_folder: Path) -> None:
    call = call_pulumi(bin_folder, "exit 0", make_error(MACHINE, "slow", "warning"), make_error("", "x", "debug"))
    with call.event_log.open("a") as file:
        file.write('{"diagnosticEvent": {"urn"')
    call.wait(10)

    assert call.failures() == []


def test_when_the_engine_tells_nothing_the_end_of_the_output_is_told(bin_folder: Path) -> None:
    found = find_failures(bin_folder, words="echo 'error: no passphrase'; exit 255")

    assert [each.message for each in found] == ["error: no passphrase"]


def test_only_the_output_of_this_call_is_told(bin_folder: Path) -> None:
    find_failures(bin_folder, words="echo earlier; exit 255")

    assert [each.message for each in find_failures(bin_folder, words="echo later; exit 255")] == ["later"]


def test_waiting_is_bounded_and_an_interrupt_reaches_pulumi(bin_folder: Path) -> None:
    call = call_pulumi(bin_folder, "trap 'exit 7' INT; echo ready; while :; do sleep 0.02; done")
    wait_until(lambda: "ready" in call.log.read_text())

    assert call.wait(0.01) is None and call.is_running()
    call.interrupt()
    assert call.wait(10) == 7
    call.interrupt()


LEAVE_CHILDREN = """
import subprocess, sys, time
inside = subprocess.Popen(["sleep", "60"])
outside = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(inside.pid, outside.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def session() -> Iterator[tuple[subprocess.Popen[str], psutil.Process, psutil.Process]]:
    """A process that leads a session, its child in it, and its child with a session of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", LEAVE_CHILDREN], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        inside, outside = (psutil.Process(int(pid)) for pid in leader.stdout.readline().split())
        yield leader, inside, outside
        for process in (leader, inside, outside):
            try:
                process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until(holds: Any, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_ending_a_session_ends_all_of_it_and_nothing_else(session: Any) -> None:
    leader, inside, outside = session

    assert end_session(mark_process(leader.pid)) == 2

    wait_until(lambda: leader.poll() is not None and is_gone(inside))
    assert outside.is_running()


def test_a_session_whose_leader_is_dead_is_ended_all_the_same(session: Any) -> None:
    leader, inside, outside = session
    mark = mark_process(leader.pid)
    leader.kill()
    leader.wait()

    assert end_session(mark) == 1

    wait_until(lambda: is_gone(inside))
    assert outside.is_running()


def test_a_later_process_with_the_same_id_is_left_alone(session: Any) -> None:
    leader, inside, _ = session
    mark = mark_process(leader.pid)

    assert end_session(ProcessMark(pid=mark.pid, started_at=mark.started_at - 100)) == 0
    assert end_session(ProcessMark(pid=mark.pid, started_at=mark.started_at + 100)) == 0

    assert leader.poll() is None and inside.is_running()


def test_a_mark_is_alive_only_as_long_as_that_very_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        mark = mark_process(process.pid)
        assert is_alive(mark)
        assert not is_alive(ProcessMark(pid=mark.pid, started_at=mark.started_at - 60))

        process.kill()
        wait_until(lambda: psutil.Process(mark.pid).status() == psutil.STATUS_ZOMBIE)
        assert not is_alive(mark)
    assert not is_alive(mark)


class LockedStack(Stack):
    """A stack whose file backend's lock is what the test wrote; unlocking is remembered."""

    def __init__(self, backend: str) -> None:
        self.run = "t-1"
        self.environment = {"PULUMI_BACKEND_URL": backend}
        self.unlocked = 0

    def unlock(self) -> None:
        self.unlocked += 1


def lock(state: Path, pid: int, *, host: str = "", at: float | None = None, text: str = "") -> LockedStack:
    """Write a lock as Pulumi's file backend does, with Go's nanoseconds."""
    folder = state / ".pulumi" / "locks" / "organization" / "leasehold" / "t-1"
    folder.mkdir(parents=True)
    moment = datetime.datetime.fromtimestamp(at if at is not None else time.time(), tz=datetime.UTC).isoformat()
    stamp = moment.replace("+00:00", "123Z") if "." in moment else moment.replace("+00:00", ".123456789Z")
    data = {"pid": pid, "username": "ada", "hostname": host or socket.gethostname(), "timestamp": stamp}
    (folder / "3f1c.json").write_text(text or json.dumps(data))
    return LockedStack(f"file://{state}")


def find_dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_without_a_lock_there_is_nothing_to_clear(tmp_path: Path) -> None:
    assert LockedStack(f"file://{tmp_path}").clear_stale_lock() is None


def test_another_backend_keeps_its_own_locks(tmp_path: Path) -> None:
    assert LockedStack("s3://bucket").clear_stale_lock() is None


def test_a_lock_of_a_dead_process_on_this_computer_is_removed_and_told(tmp_path: Path) -> None:
    pid = find_dead_pid()
    stack = lock(tmp_path, pid)

    notice = stack.clear_stale_lock()

    assert stack.unlocked == 1
    assert notice is not None and str(pid) in notice


def test_a_lock_of_a_live_process_is_respected(tmp_path: Path) -> None:
    stack = lock(tmp_path, os.getpid())

    with pytest.raises(CloudError, match=f"held by process {os.getpid()}") as caught:
        stack.clear_stale_lock()

    assert stack.unlocked == 0
    assert "./inv release t-1 --force" in caught.value.fix


def test_a_lock_from_another_computer_is_respected_whatever_runs_here(tmp_path: Path) -> None:
    stack = lock(tmp_path, find_dead_pid(), host="elsewhere")

    with pytest.raises(CloudError, match="on elsewhere"):
        stack.clear_stale_lock()
    assert stack.unlocked == 0


def test_a_lock_older_than_the_process_that_has_its_id_now_is_stale(tmp_path: Path) -> None:
    stack = lock(tmp_path, os.getpid(), at=psutil.Process().create_time() - 60)

    assert stack.clear_stale_lock() is not None
    assert stack.unlocked == 1


def test_a_lock_whose_time_cannot_be_read_is_respected_while_its_process_runs(tmp_path: Path) -> None:
    data = {"pid": os.getpid(), "hostname": socket.gethostname(), "timestamp": "yesterday"}
    stack = lock(tmp_path, 0, text=json.dumps(data))

    with pytest.raises(CloudError):
        stack.clear_stale_lock()


def test_a_zombie_holds_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)

        assert lock(tmp_path, process.pid).clear_stale_lock() is not None


def test_pulumi_works_on_our_own_state_unless_the_user_has_chosen_theirs(tmp_path: Path) -> None:
    base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PULUMI_HOME": str(tmp_path)}

    ours = make_stack_environment(tmp_path, base)
    theirs = make_stack_environment(tmp_path, {**base, "PULUMI_BACKEND_URL": "s3://b", "PULUMI_CONFIG_PASSPHRASE": "p"})

    assert ours["PULUMI_BACKEND_URL"] == f"file://{tmp_path / 'state'}"
    assert ours["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(tmp_path / "passphrase")
    assert theirs["PULUMI_BACKEND_URL"] == "s3://b"
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in theirs


def test_what_a_workflow_sets_to_nothing_is_not_set(tmp_path: Path) -> None:
    base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PULUMI_HOME": str(tmp_path)}
    empty = dict.fromkeys(("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"), "")

    assert make_stack_environment(tmp_path, {**base, **empty}) == make_stack_environment(tmp_path, base)


def test_exports_take_back_an_empty_passphrase_which_plain_pulumi_would_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    environ = {**os.environ, "PULUMI_HOME": str(tmp_path), "PULUMI_BACKEND_URL": "", "PULUMI_CONFIG_PASSPHRASE": ""}
    script = f"{render_exports(environ)}\nenv"

    done = subprocess.run(
        ["/bin/sh", "-ec", script], env=environ, capture_output=True, text=True, timeout=20, check=True
    )

    shown = done.stdout.splitlines()
    assert f"PULUMI_BACKEND_URL=file://{tmp_path / 'home' / 'state'}" in shown
    assert f"PULUMI_CONFIG_PASSPHRASE_FILE={tmp_path / 'home' / 'passphrase'}" in shown
    assert [line for line in shown if line.startswith("PULUMI_CONFIG_PASSPHRASE=")] == []


@pytest.mark.parametrize(
    ("environ", "is_told"),
    [
        ({"PULUMI_BACKEND_URL": "s3://states?region=x"}, True),
        ({"PULUMI_BACKEND_URL": "s3://states", "PULUMI_CONFIG_PASSPHRASE": ""}, True),
        ({"PULUMI_BACKEND_URL": "s3://states", "PULUMI_CONFIG_PASSPHRASE": "known"}, False),
        ({"PULUMI_BACKEND_URL": "s3://states", "PULUMI_CONFIG_PASSPHRASE_FILE": "/known"}, False),
        ({"PULUMI_BACKEND_URL": "file:///states"}, False),
        ({"PULUMI_BACKEND_URL": "https://api.example"}, False),
        ({}, False),
    ],
)
def test_a_shared_state_that_only_this_computer_can_read_is_told(environ: dict[str, str], is_told: bool) -> None:
    told = warn_of_own_passphrase(environ)

    assert bool(told) == is_told
    assert not is_told or ("s3://states, by" in told and "PULUMI_CONFIG_PASSPHRASE" in told)


def test_a_user_who_is_logged_in_keeps_that_backend(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text('{"current": "https://api.example"}')

    environment = make_stack_environment(tmp_path, {"PATH": os.environ["PATH"], "PULUMI_HOME": str(tmp_path)})

    assert "PULUMI_BACKEND_URL" not in environment


def make_stack(tmp_path: Path, **environment: str) -> tuple[Stack, Path]:
    """A stack in a home of its own, and the log of the `pulumi` that it calls, which knows the stack `asked-1`."""
    (tmp_path / "bin").mkdir()
    log = tmp_path / "asked"
    pulumi = tmp_path / "bin" / "pulumi"
    pulumi.write_text(f'#!/bin/sh\necho "$*" >> {log}\necho \'[{{"name": "organization/leasehold/asked-1"}}]\'\n')
    pulumi.chmod(0o755)
    stack = Stack("t-1", tmp_path, tmp_path / "home", {"PULUMI_HOME": str(tmp_path), **environment})
    stack.environment["PATH"] = f"{tmp_path / 'bin'}:{stack.environment['PATH']}"
    return stack, log


def test_a_stack_whose_file_is_there_exists_and_pulumi_is_not_asked(tmp_path: Path) -> None:
    stack, log = make_stack(tmp_path)
    states = tmp_path / "home" / "state" / ".pulumi" / "stacks" / "leasehold"
    states.mkdir(parents=True)
    (states / "t-1.json").touch()

    assert stack.exists()
    assert not log.exists()


@pytest.mark.parametrize("backend", ["", "s3://bucket"])
def test_of_a_stack_whose_file_is_not_seen_pulumi_is_asked(tmp_path: Path, backend: str) -> None:
    stack, log = make_stack(tmp_path, **({"PULUMI_BACKEND_URL": backend} if backend else {}))
    states = tmp_path / "home" / "state" / ".pulumi" / "stacks" / "leasehold"
    states.mkdir(parents=True)
    (states / ("t-1.json" if backend else "t-1.json.bak")).touch()

    assert not stack.exists()
    assert log.read_text() == "stack ls --json --project leasehold --non-interactive\n"
    stack.run = "asked-1"
    assert stack.exists()


def test_the_configuration_goes_along_with_up(tmp_path: Path) -> None:
    stack, log = make_stack(tmp_path)

    assert stack.start_up(7, {"job": "/home/me/a job=b.yaml"}).wait(10) == 0

    assert "--parallel 7 --config leasehold:job=/home/me/a job=b.yaml --stack t-1" in log.read_text()


def test_the_language_host_asks_our_python_unless_the_user_has_chosen_theirs(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    ours, theirs = make_stack(tmp_path)[0], make_stack(tmp_path / "theirs", PULUMI_PYTHON_CMD="python3.13")[0]

    assert ours.environment["PULUMI_PYTHON_CMD"] == str(HOST_PYTHON)
    assert theirs.environment["PULUMI_PYTHON_CMD"] == "python3.13"


def test_a_home_elsewhere_has_a_project_that_keeps_its_stacks_there(tmp_path: Path) -> None:
    first = prepare_project(tmp_path)
    second = prepare_project(tmp_path)

    assert first == second == tmp_path / "project"
    assert str(tmp_path / "stacks") in (first / "Pulumi.yaml").read_text()
    assert (first / "stacks" / "__main__.py").exists()
