"""What the start script does when there is nothing to be had: each case has its exit code, its words, and leaves nothing."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import msgspec
import pytest

from stacks.launch.engine_script import (
    ENGINE_EXITED,
    GPU_CHECK_FAILED,
    LEASE_REVOKED,
    NEVER_HEALTHY,
    NO_SECRET,
    render_engine_start,
)
from stacks.launch.launch import EngineLaunch, GpuCheck

pytestmark = pytest.mark.wire


def test_an_engine_that_exits_fails_at_once_with_the_end_of_its_log(machine: Any, launch: EngineLaunch) -> None:
    chatter = 'i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo line $i; done; cat "$HOME/.leasehold/engine.key" >&2'
    machine.add_command("llamacpp-server", f"{chatter}; echo 'out of memory' >&2; exit 3")
    began = time.monotonic()

    result = machine.start(launch)

    assert result.returncode == ENGINE_EXITED
    assert "ended before it was ready" in result.stderr
    assert "line 60\n***\nout of memory" in result.stderr
    assert "line 22\n" not in result.stderr
    assert time.monotonic() - began < 5
    assert machine.key not in result.stdout + result.stderr


def test_the_real_engine_says_what_it_does_not_understand(machine: Any, launch: EngineLaunch) -> None:
    launch = msgspec.structs.replace(launch, arguments=(*launch.arguments, "--no-such-option"))

    result = machine.start(launch)

    assert result.returncode == ENGINE_EXITED
    assert "unrecognized arguments: --no-such-option" in result.stderr


def test_a_command_that_is_not_there_is_named(machine: Any, launch: EngineLaunch) -> None:
    launch = msgspec.structs.replace(launch, arguments=("vllm-not-here", "serve"))

    result = machine.start(launch)

    assert result.returncode == ENGINE_EXITED
    assert "there is no vllm-not-here on PATH" in result.stderr


def test_an_engine_that_never_gets_healthy_is_ended_at_the_deadline(machine: Any, short_launch: EngineLaunch) -> None:
    machine.add_command("llamacpp-server", "echo loading; trap '' TERM; while :; do sleep 60; done")
    machine.add_command("sleep", 'case $1 in 60) exec /bin/sleep 60 ;; *) exec /bin/sleep "$1" ;; esac')

    result = machine.start(short_launch)

    assert result.returncode == NEVER_HEALTHY
    assert "not ready after 1 s" in result.stderr
    assert "loading" in result.stderr
    assert machine.find_processes() == []


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        ("echo 23028", "GPU 0 has 23028 MiB of memory, 73728 are needed"),
        ("echo 81559", "GPUs that answer: 1, needed: 2"),
        ("echo 'Unable to determine the device handle'; exit 15", "nvidia-smi failed: Unable to determine"),
        ("", "GPUs that answer: 0"),
    ],
)
def test_gpus_that_are_not_as_rented_have_an_exit_code_of_their_own(
    fake: str, words: str, machine: Any, launch: EngineLaunch
) -> None:
    machine.add_command("nvidia-smi", fake)
    launch = msgspec.structs.replace(launch, gpu=GpuCheck(count=2, min_memory_mib=73728, timeout_s=0))

    result = machine.start(launch)

    assert result.returncode == GPU_CHECK_FAILED
    assert result.stderr.startswith(f"GPU check failed: {words}")
    assert machine.find_processes() == []


def test_a_machine_without_nvidia_smi_fails_the_check_at_once(machine: Any, launch: EngineLaunch) -> None:
    machine.allow_only("sh", "cat", "cut", "date", "mkdir", "rm", "sleep")
    launch = msgspec.structs.replace(launch, gpu=GpuCheck(count=1, min_memory_mib=1, timeout_s=60))

    result = machine.start(launch)

    assert (result.returncode, result.stderr) == (GPU_CHECK_FAILED, "GPU check failed: nvidia-smi is not there\n")


def test_a_revoked_lease_ends_a_start_that_waits_and_its_engine(machine: Any, launch: EngineLaunch) -> None:
    machine.add_command("llamacpp-server", "exec sleep 60")
    script = machine.begin(render_engine_start(launch))
    machine.wait_for_engine()

    (machine.folder / "revoked").touch()
    _, err = script.communicate(timeout=5)

    assert (script.returncode, err) == (LEASE_REVOKED, "engine: the lease was revoked\n")
    assert machine.find_processes() == []
    assert machine.start(launch).returncode == LEASE_REVOKED


def test_a_port_that_another_server_answers_is_refused(machine: Any, launch: EngineLaunch) -> None:
    other = subprocess.Popen(
        [str(machine.bin / "llamacpp-server"), *launch.arguments[1:]],
        env={"HOME": str(machine.home), "PATH": machine.path, "PYTHONPATH": "."},
        stderr=subprocess.DEVNULL,
    )
    machine.wait_for(lambda: answers(machine, launch.port))

    result = machine.start(launch)
    other.kill()
    other.wait()

    assert result.returncode == ENGINE_EXITED
    assert f"another server answers on port {launch.port} already" in result.stderr


@pytest.mark.parametrize("stdin", ["", "\n\n", "\ntoken\n"])
def test_without_a_key_nothing_is_started(stdin: str, machine: Any, launch: EngineLaunch) -> None:
    result = machine.run(render_engine_start(launch), stdin)

    assert (result.returncode, result.stderr) == (NO_SECRET, "engine: no engine key on standard input\n")
    assert not machine.folder.exists()


def test_without_the_token_that_the_model_needs_nothing_is_started(machine: Any, launch: EngineLaunch) -> None:
    launch = msgspec.structs.replace(launch, needs_hf_token=True)

    result = machine.run(render_engine_start(launch), f"{machine.key}\n\n")

    assert result.returncode == NO_SECRET
    assert "needs a token of the hub" in result.stderr


def answers(machine: Any, port: int) -> bool:
    try:
        return bool(machine.ask(port, "/health")[0] == 200)
    except OSError:
        return False
