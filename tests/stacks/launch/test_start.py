"""The start script against the real engine: it comes up once, whatever the machine has, and shows its key to nobody."""

from __future__ import annotations

import os
import signal
import stat
from typing import Any

import msgspec
import pytest

from stacks.launch.engine_script import render_engine_log, render_engine_start
from stacks.launch.launch import EngineLaunch, GpuCheck

pytestmark = pytest.mark.wire
# What a small image has, without a way to ask over HTTP and without setsid, perl and timeout.
TOOLS = ("sh", "cat", "cut", "date", "mkdir", "nohup", "printf", "rm", "sleep", "tail", "tr", "head")
SLOW_ENGINE = 'sleep 1.5; exec "$0.real" "$@"'


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["bash"], ["busybox", "sh"], ["zsh"]], ids=" ".join)
def test_the_engine_serves_with_the_key_after_the_script_has_ended(
    shell: list[str], machine: Any, launch: EngineLaunch
) -> None:
    machine.shell = shell

    result = machine.start(launch)

    assert (result.returncode, result.stderr) == (0, "")
    assert "ready after" in result.stdout
    assert machine.ask(launch.port, "/v1/models")[0] == 200
    assert machine.ask(launch.port, "/v1/models", key="wrong")[0] == 401


def test_the_key_is_in_a_file_for_its_owner_only_and_in_no_argument_or_output(
    machine: Any, launch: EngineLaunch
) -> None:
    result = machine.start(launch)

    assert stat.S_IMODE((machine.folder / "engine.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.folder.stat().st_mode) == 0o700
    assert (machine.folder / "engine.key").read_text() == f"{machine.key}\n"
    assert len(machine.list_arguments()) == 1
    assert machine.key not in result.stdout + result.stderr + machine.list_arguments()[0]
    assert machine.token not in machine.list_arguments()[0]


def test_no_process_has_a_secret_among_its_arguments_while_the_engine_starts(
    machine: Any, launch: EngineLaunch
) -> None:
    slow_down(machine)
    script = machine.begin(render_engine_start(launch))
    seen: set[str] = set()

    while script.poll() is None:
        seen.update(machine.list_arguments())
    script.communicate()

    assert script.returncode == 0
    assert any("curl" in words for words in seen)
    assert not [words for words in seen if machine.key in words or machine.token in words]


def test_a_second_start_is_a_no_op(machine: Any, launch: EngineLaunch) -> None:
    machine.start(launch)
    pid = machine.engine.pid

    second = machine.start(launch)

    assert (second.returncode, second.stdout) == (0, "engine: already serving\n")
    assert machine.engine.pid == pid
    assert machine.ask(launch.port, "/health")[0] == 200


@pytest.mark.parametrize("change", ["arguments", "key"])
def test_a_start_with_another_engine_or_key_replaces_the_one_that_runs(
    change: str, machine: Any, launch: EngineLaunch
) -> None:
    machine.start(launch)
    first = machine.engine
    stdin = f"{machine.key}\n\n"
    if change == "arguments":
        launch = msgspec.structs.replace(launch, arguments=(*launch.arguments, "--alias", "other"))
    else:
        machine.key = "another-key"
        stdin = "another-key\n\n"

    result = machine.run(render_engine_start(launch), stdin)

    assert result.returncode == 0, result.stderr
    assert machine.is_gone(first)
    assert machine.engine.pid != first.pid
    assert machine.ask(launch.port, "/v1/models", key=machine.key)[0] == 200


def test_an_engine_that_was_ready_once_and_answers_no_longer_is_replaced(machine: Any, launch: EngineLaunch) -> None:
    real = (machine.bin / "llamacpp-server").read_text()
    machine.add_command("llamacpp-server", "exec sleep 60")
    script = machine.begin(render_engine_start(launch))
    machine.wait_for_engine()
    script.kill()
    script.communicate()
    (machine.folder / "engine.ready").touch()
    deaf = machine.engine
    (machine.bin / "llamacpp-server").write_text(real)

    result = machine.start(launch)

    assert result.returncode == 0, result.stderr
    assert "it no longer answers after 3 tries" in result.stdout
    assert machine.is_gone(deaf)
    assert machine.ask(launch.port, "/health")[0] == 200


def test_a_start_takes_over_an_engine_that_still_loads_when_the_first_start_was_killed(
    machine: Any, launch: EngineLaunch
) -> None:
    slow_down(machine)
    script = machine.begin(render_engine_start(launch))
    machine.wait_for_engine()
    script.send_signal(signal.SIGKILL)
    script.communicate()
    pid = machine.engine.pid

    second = machine.start(launch)

    assert second.returncode == 0, second.stderr
    assert "already starting" in second.stdout
    assert machine.engine.pid == pid


def test_two_starts_at_once_make_one_engine(machine: Any, launch: EngineLaunch) -> None:
    slow_down(machine)
    scripts = [machine.begin(render_engine_start(launch)) for _ in range(2)]

    outputs = [script.communicate(timeout=20) for script in scripts]

    assert [script.returncode for script in scripts] == [0, 0], outputs
    assert sum("starting on port" in out for out, _ in outputs) == 1
    assert len(machine.list_arguments()) == 1


@pytest.mark.parametrize("tool", ["curl", "python3", "wget", "bash"])
def test_any_one_way_to_ask_for_health_is_enough(tool: str, machine: Any, launch: EngineLaunch) -> None:
    machine.allow_only(*TOOLS, tool)

    result = machine.start(launch)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("tool", ["setsid", "perl", "python3"])
def test_the_engine_gets_a_session_of_its_own_with_any_tool_for_it(
    tool: str, machine: Any, launch: EngineLaunch
) -> None:
    machine.allow_only(*TOOLS, "bash", tool)

    machine.start(launch)

    assert os.getsid(machine.engine.pid) == machine.engine.pid


def test_without_such_a_tool_the_engine_survives_a_hangup_and_can_be_replaced(
    machine: Any, launch: EngineLaunch
) -> None:
    machine.allow_only(*TOOLS, "bash")
    assert machine.start(launch).returncode == 0
    engine = machine.engine
    engine.send_signal(signal.SIGHUP)
    assert machine.ask(launch.port, "/health")[0] == 200

    result = machine.start(msgspec.structs.replace(launch, arguments=(*launch.arguments, "--alias", "other")))

    assert result.returncode == 0, result.stderr
    assert machine.is_gone(engine)


def test_gpus_with_enough_memory_pass_the_check(machine: Any, launch: EngineLaunch) -> None:
    machine.add_command("nvidia-smi", "echo 81559; echo 81559; echo '[N/A]'")
    launch = msgspec.structs.replace(launch, gpu=GpuCheck(count=3, min_memory_mib=73728))

    result = machine.start(launch)

    assert result.returncode == 0, result.stderr
    assert "the GPUs answer" in result.stdout


def test_a_driver_that_is_late_is_waited_for(machine: Any, launch: EngineLaunch) -> None:
    machine.add_command("nvidia-smi", "[ -e late ] || { : >late; echo 'no devices'; exit 9; }; echo 24564")
    launch = msgspec.structs.replace(launch, gpu=GpuCheck(count=1, min_memory_mib=22000, timeout_s=10))

    assert machine.start(launch).returncode == 0


def test_the_log_is_printed_without_secrets(machine: Any, launch: EngineLaunch) -> None:
    machine.start(launch)
    log = machine.folder / "engine.log"
    log.write_text(log.read_text() + f"10 %\r50 %\rkey {machine.key}, again {machine.key}.\nthe end")

    result = machine.run(render_engine_log(launch, lines=3))

    assert (result.returncode, result.stdout) == (0, "50 %\nkey ***, again ***.\nthe end\n")


def slow_down(machine: Any) -> None:
    (machine.bin / "llamacpp-server").rename(machine.bin / "llamacpp-server.real")
    machine.add_command("llamacpp-server", SLOW_ENGINE)
