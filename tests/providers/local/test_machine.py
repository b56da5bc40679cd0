"""How a local machine ends: asked to, by its dead-man, killed, or half made. Nothing of it may be left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from providers.local.folder import FolderRecord, load_record, prepare_folder
from providers.local.launch import start_machine
from providers.local.listing import LAUNCH_GRACE_S, list_machines, terminate_machine
from providers.local.processes import find_processes, get_start_time
from schemas.files import hold_lock

pytestmark = pytest.mark.wire


def test_terminate_ends_a_child_that_left_its_session_and_one_that_ignores_sigterm(
    local_bench: Any, process_is_gone: Any
) -> None:
    state = local_bench.launch_ready()
    engines = [
        local_bench.start_engine(state),
        local_bench.start_engine(state, "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.2; done'"),
    ]
    started = time.monotonic()
    local_bench.make_cloud().terminate(state.id)

    assert all(process_is_gone(engine) for engine in engines)
    assert time.monotonic() - started < 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can adopt orphans")
def test_terminate_ends_a_child_that_cleared_its_environment(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state, "env -i setsid /bin/sleep 300")
    local_bench.wait_until(lambda: engine.environ() == {})
    local_bench.make_cloud().terminate(state.id)

    assert process_is_gone(engine)


def test_a_killed_machine_leaves_nothing_though_nobody_terminates_it(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    os.kill(find_pid(local_bench, state.id), signal.SIGKILL)

    local_bench.wait_until(lambda: process_is_gone(engine), 3)
    local_bench.wait_until(lambda: not find_processes(local_bench.root / state.id), 3)
    local_bench.wait_until(lambda: not (local_bench.root / state.id).exists(), 3)
    assert local_bench.make_cloud().list_ours("lh-") == []


def test_a_killed_process_group_leaves_nothing(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    os.killpg(os.getpgid(find_pid(local_bench, state.id)), signal.SIGKILL)

    local_bench.wait_until(lambda: process_is_gone(engine), 3)
    local_bench.wait_until(lambda: local_bench.describe(state.id) is None, 3)


def test_a_watcher_that_is_killed_is_replaced(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    keeper = psutil.Process(find_pid(local_bench, state.id))
    before = {child.pid for child in keeper.children()}
    watcher = psutil.Process(min(before - {engine.pid}))
    watcher.kill()
    local_bench.wait_until(lambda: {child.pid for child in keeper.children()} - before)
    keeper.kill()

    local_bench.wait_until(lambda: process_is_gone(engine), 3)


def test_a_machine_whose_server_dies_has_failed_and_its_engine_is_gone(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    server_pid = int(local_bench.make_cloud().logs(state.id).rsplit("pid ", 1)[1])
    os.kill(server_pid, signal.SIGKILL)

    local_bench.wait_until(lambda: process_is_gone(engine), 3)
    failed = local_bench.describe(state.id)
    assert failed is not None and failed.phase == "failed"
    assert failed.detail == "the SSH server ended by itself with status -9"
    local_bench.make_cloud().terminate(state.id)
    assert local_bench.describe(state.id) is None


def test_an_engine_that_outlives_its_whole_machine_is_listed_as_failed_and_terminated(
    local_bench: Any, process_is_gone: Any
) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    own = [process for process in find_processes(local_bench.root / state.id) if process.pid != engine.pid]
    for process in own:
        process.suspend()
    for process in own:
        process.kill()
    local_bench.wait_until(lambda: all(process_is_gone(process) for process in own))

    (listed,) = local_bench.make_cloud().list_ours("lh-")
    assert (listed.id, listed.phase, listed.name) == (state.id, "failed", state.name)
    shutil.rmtree(local_bench.root / state.id)
    (listed,) = local_bench.make_cloud().list_ours("lh-")
    assert (listed.id, listed.phase, listed.name) == (state.id, "failed", state.name)
    local_bench.make_cloud().terminate(listed.id)
    assert process_is_gone(engine)
    assert local_bench.make_cloud().list_ours("lh-") == []


def test_a_machine_whose_folder_is_removed_ends_itself(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    shutil.rmtree(local_bench.root / state.id)

    local_bench.wait_until(lambda: process_is_gone(engine), 4)
    local_bench.wait_until(lambda: local_bench.make_cloud().list_ours("") == [], 4)


def test_a_machine_ends_itself_at_its_expiry(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready(life_s=3)
    engine = local_bench.start_engine(state)
    keeper = psutil.Process(find_pid(local_bench, state.id))

    local_bench.wait_until(lambda: process_is_gone(engine) and process_is_gone(keeper), 6)
    assert not (local_bench.root / state.id).exists()
    assert local_bench.make_cloud().list_ours("") == []


def test_a_machine_that_was_launched_after_its_expiry_ends_at_once(local_bench: Any) -> None:
    id = local_bench.make_cloud().launch(local_bench.make_request(life_s=-5))

    local_bench.wait_until(lambda: local_bench.describe(id) is None, 4)


def test_a_machine_lives_while_heartbeats_come_and_ends_when_they_stop(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready(heartbeat_timeout_s=1)
    engine = local_bench.start_engine(state)
    beat = local_bench.root / state.id / "home" / ".leasehold" / "heartbeat"
    until = time.monotonic() + 2
    while time.monotonic() < until:
        beat.touch()
        assert not process_is_gone(engine)
        time.sleep(0.2)

    local_bench.wait_until(lambda: process_is_gone(engine), 5)
    local_bench.wait_until(lambda: local_bench.describe(state.id) is None, 3)


def test_a_machine_ends_though_its_record_cannot_be_written(local_bench: Any, process_is_gone: Any) -> None:
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    with hold_lock(local_bench.root / state.id / ".lock", exclusive=True, timeout_s=5):
        os.kill(find_pid(local_bench, state.id), signal.SIGTERM)
        local_bench.wait_until(lambda: process_is_gone(engine), 5)

    local_bench.wait_until(lambda: local_bench.describe(state.id) is None, 3)


def test_a_root_behind_a_symbolic_link_is_the_same_root(local_bench: Any, process_is_gone: Any) -> None:
    local_bench.root.mkdir()
    link = local_bench.folder / "link"
    link.symlink_to(local_bench.root)
    machine = start_machine(link, local_bench.make_spec())
    engine = local_bench.start_engine(local_bench.wait_ready(machine.id))
    os.kill(machine.pid, signal.SIGSTOP)
    terminate_machine(link, machine.id, keeper_timeout_s=0.3)

    assert process_is_gone(engine)
    assert list_machines(link) == []


def test_a_machine_that_hangs_at_its_start_is_ended_by_its_dead_man(local_bench: Any) -> None:
    machine = local_bench.start(fault="hang", expires_at=int(time.time() + 2))
    state = local_bench.describe(machine.id)

    assert state is not None and (state.phase, state.endpoint) == ("starting", None)
    local_bench.wait_until(lambda: local_bench.describe(machine.id) is None, 5)


def test_a_host_key_that_is_none_fails_the_machine_and_its_log_says_so(local_bench: Any) -> None:
    machine = local_bench.start(host_private_key="no key")
    local_bench.wait_until(lambda: getattr(local_bench.describe(machine.id), "phase", "") == "failed")

    assert "the SSH server cannot serve" in local_bench.make_cloud().logs(machine.id)


# A launch that is killed when it comes to the function named by the second argument.
KILLED_LAUNCH = """
import os, signal, sys
from pathlib import Path
import msgspec
from providers.local import folder, launch
def die(*_arguments, **_fields): os.kill(os.getpid(), signal.SIGKILL)
module, name = sys.argv[2].rsplit(".", 1)
setattr({"folder": folder, "launch": launch}[module], name, die)
spec = msgspec.json.decode(sys.stdin.buffer.read(), type=folder.MachineSpec)
launch.start_machine(Path(sys.argv[1]), spec)
"""


@pytest.mark.parametrize("place", ["folder.fill_folder", "launch.write_commands", "launch.spawn_keeper"])
def test_a_launch_killed_before_the_process_leaves_no_machine_and_is_cleaned_up(local_bench: Any, place: str) -> None:
    kill_launch_at(local_bench, place)
    cloud = local_bench.make_cloud()
    young = list(cloud.list_ours("lh-"))
    age_all(local_bench.root)

    assert all(state.phase == "starting" for state in young)
    assert list(cloud.list_ours("lh-")) == []
    assert list(local_bench.root.iterdir()) == []


def test_what_a_killed_launch_left_can_be_terminated_while_it_is_young(local_bench: Any) -> None:
    kill_launch_at(local_bench, "launch.spawn_keeper")
    cloud = local_bench.make_cloud()
    (state,) = cloud.list_ours("lh-")
    cloud.terminate(state.id)

    assert list(cloud.list_ours("lh-")) == []


@pytest.mark.parametrize("place", ["launch.get_start_time", "launch.update_record"])
def test_a_launch_killed_after_the_process_leaves_a_machine_that_its_name_finds(local_bench: Any, place: str) -> None:
    kill_launch_at(local_bench, place)
    cloud = local_bench.make_cloud()
    found = cloud.find(local_bench.make_spec().name)

    assert found is not None
    ready = local_bench.wait_ready(found.id)
    assert local_bench.ssh(ready, "echo here").stdout == b"here\n"
    cloud.terminate(found.id)
    assert find_processes(local_bench.root / found.id) == []


def test_a_keeper_whose_folder_is_gone_before_it_starts_ends_without_a_trace(local_bench: Any) -> None:
    machine = local_bench.start()
    shutil.rmtree(machine.folder)

    local_bench.wait_until(lambda: not psutil.pid_exists(machine.pid), 4)
    assert list(local_bench.root.iterdir()) == []


@pytest.mark.parametrize("call", ["find", "terminate"])
def test_a_pid_that_has_been_given_to_another_process_is_neither_a_machine_nor_killed(
    local_bench: Any, bystander: psutil.Process, call: str
) -> None:
    spec = local_bench.make_spec()
    folder = prepare_folder(local_bench.root, spec)
    write_record(folder, pid=bystander.pid, process_started_at=get_start_time(bystander.pid) - 100)
    result = getattr(local_bench.make_cloud(), call)(spec.id)

    assert result is None
    assert not folder.exists()
    assert bystander.is_running() and bystander.status() != psutil.STATUS_ZOMBIE


def test_two_machines_of_one_id_are_refused(local_bench: Any) -> None:
    local_bench.start()
    with pytest.raises(FileExistsError):
        local_bench.start()

    assert len(local_bench.make_cloud().list_ours("")) == 1


@pytest.fixture
def bystander() -> Iterator[psutil.Process]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def find_pid(bench: Any, id: str) -> int:
    record = load_record(bench.root / id)
    assert record is not None
    return record.pid


def kill_launch_at(bench: Any, place: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_LAUNCH, str(bench.root), place],
        input=msgspec.json.encode(bench.make_spec()),
        timeout=20,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert ended.returncode == -signal.SIGKILL


def age_all(root: Path) -> None:
    """Make everything under root look as old as a launch that must have died."""
    old = time.time() - LAUNCH_GRACE_S * 10
    for folder in root.iterdir():
        if (folder / "machine.json").exists():
            write_record(folder, created_at=old)
        os.utime(folder, (old, old))


def write_record(folder: Path, **changes: Any) -> None:
    record = load_record(folder)
    assert record is not None
    changed: FolderRecord = msgspec.structs.replace(record, **changes)
    (folder / "machine.json").write_bytes(msgspec.json.encode(changed))
