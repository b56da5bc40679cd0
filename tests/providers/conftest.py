"""A bench for the tests of the local cloud: real machines in a folder of their own, all ended when the test is over."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest

from providers.cloud import LaunchRequest, MachineState, Need
from providers.local.folder import MachineSpec
from providers.local.launch import LocalMachine, start_machine
from providers.local.listing import describe_machine, list_machines, terminate_machine
from providers.local.local import LocalCloud
from providers.local.processes import find_processes
from schemas.ssh import SshTarget, make_ssh_arguments, write_known_hosts

# Its assertions then say what they compared.
pytest.register_assert_rewrite("tests.providers.knob_story")

NAME = "lh-abcdefghijkl-{index}x0-zzzzzz"


class LocalBench:
    """Clouds, keys and waits, with a short root, since the path of a unix socket may have 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "cloud"
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self.key_file = folder / "id"
        self.client_key.write_private_key(str(self.key_file))
        self.key_file.chmod(0o600)
        self.public_key = self.client_key.export_public_key().decode().strip()
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_private_key = host_key.export_private_key().decode()
        self.host_public_key = host_key.export_public_key().decode().strip()

    def make_cloud(self, **options: Any) -> LocalCloud:
        return LocalCloud(self.root, **options)

    def make_request(self, *, index: int = 0, life_s: float = 60, **fields: Any) -> LaunchRequest:
        values: dict[str, Any] = {
            "name": NAME.format(index=index),
            "offer": self.make_cloud(price_usd_per_hour=1.25).offers(Need())[0],
            "public_key": self.public_key,
            "host_private_key": self.host_private_key,
            "expires_at": int(time.time() + life_s),
        }
        return LaunchRequest(**(values | fields))

    def make_spec(self, **fields: Any) -> MachineSpec:
        values: dict[str, Any] = {
            "id": "m1",
            "name": NAME.format(index=0),
            "public_key": self.public_key,
            "host_private_key": self.host_private_key,
            "expires_at": int(time.time() + 60),
        }
        return MachineSpec(**(values | fields))

    def start(self, **fields: Any) -> LocalMachine:
        return start_machine(self.root, self.make_spec(**fields))

    def launch_ready(self, **fields: Any) -> MachineState:
        return self.wait_ready(self.make_cloud().launch(self.make_request(**fields)))

    def wait_ready(self, id: str) -> MachineState:
        self.wait_until(lambda: (state := self.describe(id)) is not None and state.phase == "ready", 10)
        state = self.describe(id)
        assert state is not None
        return state

    def describe(self, id: str) -> MachineState | None:
        return describe_machine(self.root / id)

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 5.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < deadline, f"not within {timeout_s} s"
            time.sleep(0.02)

    def make_ssh(self, state: MachineState, *, host_key: str = "", key_file: Path | None = None) -> list[str]:
        assert state.endpoint is not None
        known_hosts = self.folder / f"known-{state.id}"
        write_known_hosts(known_hosts, state.name, host_key or self.host_public_key)
        target = SshTarget(
            host=state.endpoint.host,
            port=state.endpoint.port,
            user="root",
            key_file=str(key_file or self.key_file),
            known_hosts_file=str(known_hosts),
            alias=state.name,
        )
        return make_ssh_arguments(target)

    def ssh(self, state: MachineState, command: str, *, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.make_ssh(state), command], input=data, capture_output=True, timeout=20)

    def start_engine(self, state: MachineState, command: str = "setsid nohup sleep 300") -> psutil.Process:
        """Start something that outlives its session, as the engine does."""
        started = self.ssh(state, f"{command} >/dev/null 2>&1 </dev/null & echo $!")
        return psutil.Process(int(started.stdout))

    def end_all(self) -> None:
        for state in list_machines(self.root):
            terminate_machine(self.root, state.id)


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def local_bench() -> Iterator[LocalBench]:
    yield from run_bench()


@pytest.fixture(scope="module")
def shared_local_bench() -> Iterator[LocalBench]:
    yield from run_bench()


@pytest.fixture(scope="module")
def local_machine(shared_local_bench: LocalBench) -> MachineState:
    """One machine for all tests of a module that only talk to it."""
    return shared_local_bench.launch_ready()


@pytest.fixture
def process_is_gone() -> Callable[[psutil.Process], bool]:
    return is_gone


def run_bench() -> Iterator[LocalBench]:
    folder = Path(tempfile.mkdtemp(prefix="lh-")).resolve()
    bench = LocalBench(folder)
    try:
        yield bench
    finally:
        bench.end_all()
        left = [process.pid for machine in bench.root.glob("*") for process in find_processes(machine)]
        shutil.rmtree(folder, ignore_errors=True)
    assert not left
