"""Emulators and plain HTTP clients for them; without real machines unless a test asks for some."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.emulators.emulator import Emulator, start_emulator
from providers.keys import KeyPair, make_key_pair
from schemas.ssh import SshTarget, make_ssh_arguments, write_known_hosts

H100 = "NVIDIA H100 80GB HBM3"
START = r"""
umask 077
mkdir -p "$HOME/.ssh" && printf '%s\n' "$PUBLIC_KEY" >"$HOME/.ssh/authorized_keys"
printf %s "$SSH_HOST_ED25519_KEY" | base64 -d >"$HOME/host_key"
command -v sshd >/dev/null || apt-get install -y openssh-server || exit 1
echo "the pod starts sshd"
exec "$(command -v sshd)" -D -e -p 22 -h "$HOME/host_key" -o AuthorizedKeysFile=.ssh/authorized_keys
"""


class Account:
    """One emulator and a client with its key; every answer is checked against the contract at the end."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.http = make_http(emulator.base_url, emulator.key)

    def make_pod(self, **changes: Any) -> dict[str, Any]:
        answer = self.http.post("/pods", json=make_pod_body(**changes))
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def get_pod(self, pod_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/pods/{pod_id}").json())

    def launch(self, *, name: str = "job-1", **changes: Any) -> str:
        self.add_key()
        body = {
            "region_name": "us-west-3",
            "instance_type_name": "gpu_1x_h100_sxm5",
            "ssh_key_names": ["key"],
            "name": name,
        }
        answer = self.http.post("/instance-operations/launch", json=body | changes)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["instance_ids"][0])

    def add_key(self, public_key: str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA") -> None:
        self.http.post("/ssh-keys", json={"name": "key", "public_key": public_key})

    def list_instances(self) -> list[dict[str, Any]]:
        return list(self.http.get("/instances").json()["data"])

    def get_instance(self, instance_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/instances/{instance_id}").json()["data"])

    def terminate(self, *ids: str) -> httpx.Response:
        return self.http.post("/instance-operations/terminate", json={"instance_ids": list(ids)})

    def find_broken(self) -> list[Any]:
        return [(x.method, x.path, x.status, x.broken) for x in self.emulator.history() if x.broken]


def make_http(base_url: str, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}", "User-Agent": "emulator-tests/1"}
    return httpx.Client(base_url=base_url, headers=headers, timeout=10, trust_env=False)


def make_pod_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": "job-1",
        "image": "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
        "disk": 50,
        "ports": ["22/tcp"],
        "gpu": {"id": H100, "count": 1},
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


OpenAccount = Callable[..., Account]


@pytest.fixture
def open_account(tmp_path: Path) -> Iterator[OpenAccount]:
    """Start an emulator; all are closed, and their answers judged, at the end of the test."""
    opened: list[Account] = []

    def open_one(cloud: Any, **settings: Any) -> Account:
        state_dir = tmp_path / f"{cloud}-{len(opened)}"
        settings = {"real_machines": False, "state_dir": state_dir} | settings
        opened.append(Account(start_emulator(cloud, **settings)))
        return opened[-1]

    yield open_one
    broken = [problem for account in opened for problem in account.find_broken()]
    for account in opened:
        account.http.close()
        account.emulator.close()
    assert broken == []


@pytest.fixture
def runpod(open_account: OpenAccount) -> Account:
    return open_account("runpod")


@pytest.fixture
def lambda_(open_account: OpenAccount) -> Account:
    """Without the pace, which has tests of its own."""
    account = open_account("lambda")
    account.emulator.set_fault("request_interval_s", 0)
    account.emulator.set_fault("launch_interval_s", 0)
    return account


class SshClient:
    """OpenSSH with a key of its own and the pinned host key of one machine."""

    def __init__(self, folder: Path) -> None:
        self.client: KeyPair = make_key_pair()
        self.host: KeyPair = make_key_pair()
        self._folder = folder
        (folder / "key").write_text(self.client.private)
        (folder / "key").chmod(0o600)
        write_known_hosts(folder / "known_hosts", "machine", self.host.public)

    @property
    def pod_env(self) -> dict[str, str]:
        host_key = base64.b64encode(self.host.private.encode()).decode()
        return {"PUBLIC_KEY": self.client.public, "SSH_HOST_ED25519_KEY": host_key}

    @property
    def user_data(self) -> str:
        indented = "\n".join(f"    {line}" for line in self.host.private.splitlines())
        return f"#cloud-config\nssh_keys:\n  ed25519_private: |\n{indented}\n"

    def run(self, port: int, command: str, *, user: str = "root", stdin: str = "") -> subprocess.CompletedProcess[str]:
        target = SshTarget(
            host="127.0.0.1",
            port=port,
            user=user,
            key_file=str(self._folder / "key"),
            known_hosts_file=str(self._folder / "known_hosts"),
            alias="machine",
        )
        arguments = [*make_ssh_arguments(target), command]
        return subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=30)

    def wait(self, port: int, *, user: str = "root") -> None:
        wait_for(lambda: self.run(port, "true", user=user).returncode == 0, f"SSH on port {port}")


@pytest.fixture
def ssh(tmp_path: Path) -> SshClient:
    return SshClient(tmp_path)


def wait_for(condition: Callable[[], Any], what: str, *, timeout_s: float = 15) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s} s for {what}")


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(name="make_pod_body")
def make_pod_body_fixture() -> Callable[..., dict[str, Any]]:
    return make_pod_body


@pytest.fixture(name="make_http")
def make_http_fixture() -> Callable[[str, str], httpx.Client]:
    return make_http


@pytest.fixture
def start_script() -> str:
    """What a client puts into `cmd` so that SSH answers with the host key it made."""
    return START
