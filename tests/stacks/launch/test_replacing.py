"""A start that replaces an engine: the old one and all of its processes are gone, and nobody else's are."""

from __future__ import annotations

import subprocess
from typing import Any

import msgspec
import pytest

from stacks.launch.launch import EngineLaunch

pytestmark = pytest.mark.wire


def test_the_children_of_the_old_engine_go_with_it(machine: Any, launch: EngineLaunch) -> None:
    real = machine.bin / "llamacpp-server.real"
    (machine.bin / "llamacpp-server").rename(real)
    machine.add_command("llamacpp-server", 'sleep 300 & "$0.real" "$@"')
    machine.start(launch)
    before = machine.find_processes()
    assert len(before) == 3

    result = machine.start(change(launch))

    assert result.returncode == 0, result.stderr
    machine.wait_for(lambda: all(machine.is_gone(process) for process in before))
    assert len(machine.find_processes()) == 3


def test_a_process_that_was_given_the_old_engines_number_is_spared(machine: Any, launch: EngineLaunch) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    machine.folder.mkdir()
    (machine.folder / "engine.pid").write_text(f"{stranger.pid}\n")
    (machine.folder / "engine.born").write_text("1\n")

    result = machine.start(launch)

    assert result.returncode == 0, result.stderr
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def change(launch: EngineLaunch) -> EngineLaunch:
    return msgspec.structs.replace(launch, arguments=(*launch.arguments, "--alias", "other"))
