"""A Pulumi stack of commands described by data, and an SSH server on 127.0.0.1, for the tests of the command plugin."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from toolchain.pulumi_cli import HOST_PYTHON, Pulumi, find_pulumi, pulumi_environment

_UP_TIMEOUT_S = 60
_STAND_IN = Path(__file__).parents[2] / "toolchain" / "command_plugin" / "bin"

# Makes one command a record of commands.json; `secret` names inputs, `secret_outputs` outputs that are kept encrypted.
_PROGRAM = """
import json
import pathlib
import pulumi
import pulumi_command

for record in json.loads(pathlib.Path("commands.json").read_text()):
    inputs = record["inputs"]
    for name in record.get("secret", []):
        inputs[name] = pulumi.Output.secret(inputs[name])
    options = pulumi.ResourceOptions(additional_secret_outputs=record.get("secret_outputs"))
    if "timeout" in record:
        options.custom_timeouts = pulumi.CustomTimeouts(create=record["timeout"])
    kind = pulumi_command.remote.Command if "connection" in inputs else pulumi_command.local.Command
    command = kind(record["name"], opts=options, **inputs)
    pulumi.export(record["name"], {"stdout": command.stdout, "stderr": command.stderr})
"""


class Stack:
    """One stack in a folder of its own, run by the real engine with the stand-in plugin."""

    def __init__(self, folder: Path, pulumi: Pulumi) -> None:
        self.folder = folder
        self._pulumi = pulumi
        path = f"{_STAND_IN}{os.pathsep}{pulumi_environment(pulumi)['PATH']}"
        self.environ = {
            **os.environ,
            **pulumi_environment(pulumi),
            "PATH": path,
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_PYTHON_CMD": str(HOST_PYTHON),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "only for tests",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        }
        self.environ.pop("SSH_AUTH_SOCK", None)
        (folder / "state").mkdir()
        (folder / "Pulumi.yaml").write_text("name: commands\nruntime: python\n")
        (folder / "__main__.py").write_text(_PROGRAM)
        self.run("stack", "init", "test")

    def declare(self, *records: dict[str, Any]) -> None:
        (self.folder / "commands.json").write_text(json.dumps(records))

    def up(self, *records: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        self.declare(*records)
        return self.run("up", "--yes", "--skip-preview", "--non-interactive")

    def destroy(self) -> subprocess.CompletedProcess[str]:
        return self.run("destroy", "--yes", "--skip-preview", "--non-interactive")

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.run("stack", "output", "--json", "--show-secrets").stdout)

    def state(self) -> str:
        return self.run("stack", "export").stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._pulumi.executable, *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=_UP_TIMEOUT_S,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._pulumi.executable, *arguments],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )


class SshServer:
    """An SSH server that runs commands with sh as the current user, in a thread with a loop of its own."""

    def __init__(self) -> None:
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._acceptor = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port = self._acceptor.get_port()

    def connection(self, **changes: Any) -> dict[str, Any]:
        """Return a connection as pulumi_command wants it."""
        own = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "tester",
            "private_key": self.client_key.export_private_key("openssh").decode(),
            "host_key": self.host_key.export_public_key("openssh").decode().strip(),
            "dial_error_limit": 1,
            "per_dial_timeout": 5,
        }
        return {key: value for key, value in {**own, **changes}.items() if value is not None}

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self.host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(
                self.client_key.export_public_key("openssh").decode()
            ),
            process_factory=self._run,
            encoding=None,
        )

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            process.command or "",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **process.env},
            process_group=0,
        )
        watch = asyncio.create_task(process.channel.wait_closed())
        work = asyncio.create_task(self._serve(process, child))
        await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
        for task in (watch, work):
            task.cancel()
        if child.returncode is None:
            os.killpg(child.pid, 9)
            await child.wait()

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
        output, errors = await child.communicate(await process.stdin.read())
        process.stdout.write(output)
        process.stderr.write(errors)
        process.exit(child.returncode or 0)

    async def _close(self) -> None:
        self._acceptor.close()
        await self._acceptor.wait_closed()


@pytest.fixture(scope="session")
def installed_pulumi() -> Pulumi:
    pulumi = find_pulumi()
    if pulumi is None:
        pytest.skip("no Pulumi; `./inv test` installs one")
    return pulumi


@pytest.fixture
def stack(tmp_path: Path, installed_pulumi: Pulumi) -> Stack:
    return Stack(tmp_path, installed_pulumi)


@pytest.fixture(scope="module")
def ssh_server() -> Iterator[SshServer]:
    server = SshServer()
    yield server
    server.close()
