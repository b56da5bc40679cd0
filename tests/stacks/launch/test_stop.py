"""The stop script: the engine and all of its processes are gone, nobody else's are, and it never fails."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from stacks.launch import EngineLaunch, render_engine_log

pytestmark = pytest.mark.wire


def test_stop_ends_the_engine_with_its_children_and_removes_the_key(machine: Any, launch: EngineLaunch) -> None:
    real = machine.bin / "llamacpp-server.real"
    (machine.bin / "llamacpp-server").rename(real)
    machine.add_command("llamacpp-server", 'sleep 300 & "$0.real" "$@"')
    machine.start(launch)
    assert len(machine.find_processes()) == 3

    result = machine.stop(launch)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    machine.wait_for(lambda: machine.find_processes() == [])
    assert sorted(path.name for path in machine.folder.iterdir()) == ["engine.log"]


def test_stop_is_safe_to_repeat_and_on_a_machine_where_nothing_was_started(machine: Any, launch: EngineLaunch) -> None:
    assert machine.stop(launch).returncode == 0

    machine.start(launch)

    assert [machine.stop(launch).returncode for _ in range(2)] == [0, 0]
    assert machine.run(render_engine_log(launch)).returncode == 0


def test_stop_spares_a_process_that_was_given_the_engines_number(machine: Any, launch: EngineLaunch) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    machine.folder.mkdir()
    (machine.folder / "engine.pid").write_text(f"{stranger.pid}\n")
    (machine.folder / "engine.born").write_text("1\n")

    machine.stop(launch)

    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_an_engine_can_be_started_again_after_a_stop(machine: Any, launch: EngineLaunch) -> None:
    machine.start(launch)
    machine.stop(launch)

    assert machine.start(launch).returncode == 0
    assert machine.ask(launch.port, "/health")[0] == 200
