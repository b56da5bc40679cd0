"""A machine that boots like a container: its start script is its first process and runs sshd itself."""

from __future__ import annotations

from typing import Any

import asyncssh
import psutil
import pytest

pytestmark = pytest.mark.wire

START = """
set -e
mkdir -p "$HOME/.ssh"
printf '%s\\n' "$PUBLIC_KEY" > "$HOME/.ssh/authorized_keys"
printf '%s' "$HOST_KEY" > "$HOME/.ssh/host_key"
chmod 600 "$HOME/.ssh/host_key"
exec "$(command -v sshd)" -D -e -p 22 -h "$HOME/.ssh/host_key" -o "AuthorizedKeysFile=$HOME/.ssh/authorized_keys"
"""


def test_the_start_script_brings_its_own_keys_and_runs_sshd(local_bench: Any) -> None:
    environment = {"PUBLIC_KEY": local_bench.public_key, "HOST_KEY": local_bench.host_private_key}
    wrong = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    machine = local_bench.start(start_script=START, machine_env=environment, public_key="", host_private_key=wrong)
    state = local_bench.wait_ready(machine.id)
    session = local_bench.ssh(state, "env")

    assert session.returncode == 0
    assert b"PUBLIC_KEY" not in session.stdout and b"HOST_KEY" not in session.stdout


def test_a_start_script_that_ends_fails_the_machine_and_its_output_stays_in_the_log(local_bench: Any) -> None:
    machine = local_bench.start(start_script="echo installing; echo no room >&2; exit 28")
    local_bench.wait_until(lambda: getattr(local_bench.describe(machine.id), "phase", "") == "failed")
    state = local_bench.describe(machine.id)

    assert state is not None and state.detail == "the start script ended by itself with status 28"
    log = local_bench.make_cloud().logs(machine.id)
    assert "installing\nno room\n" in log


def test_what_a_start_script_left_running_ends_with_the_machine(local_bench: Any, process_is_gone: Any) -> None:
    machine = local_bench.start(start_script="setsid sleep 300 & echo $! > pid; exec sshd -D")
    local_bench.wait_ready(machine.id)
    left = psutil.Process(int((machine.folder / "home" / "pid").read_text()))
    alive_before = not process_is_gone(left)
    local_bench.make_cloud().terminate(machine.id)

    assert alive_before and process_is_gone(left)
    assert not machine.folder.exists()
