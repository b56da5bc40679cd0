"""A machine as the dispatcher meets it: a real SSH server on 127.0.0.1 with a pinned host key, a home, and port forwarding."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncssh
import msgspec

from schemas.machine import MachineRecord


class SshMachine:
    """Forwards to 127.0.0.1 only; commands run with HOME in `home`."""

    def __init__(self, folder: Path, *, index: int, engine_port: int) -> None:
        self.home = folder / f"home-{index}"
        self.home.mkdir(parents=True)
        self.index = index
        self.engine_port = engine_port
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0
        self.logins = 0
        self._server: asyncssh.SSHAcceptor | None = None

    @property
    def heartbeat(self) -> Path:
        return self.home / ".leasehold" / "heartbeat"

    async def start(self) -> None:
        keys = asyncssh.import_authorized_keys(self.client_key.export_public_key().decode())
        machine = self

        class Server(asyncssh.SSHServer):
            def begin_auth(self, _username: str) -> bool:
                machine.logins += 1
                return True

            def connection_requested(self, host: str, _port: int, _from: str, _from_port: int) -> bool:
                return host == "127.0.0.1"

        self._server = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=Server,
            server_host_keys=[self.host_key],
            authorized_client_keys=keys,
            process_factory=self._run,
            encoding=None,
        )
        self.port = self._server.get_port()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def make_record(self, *, attempt: int = 0) -> MachineRecord:
        return MachineRecord(
            index=self.index,
            attempt=attempt,
            cloud="local",
            id=f"m{self.index}",
            name=f"machine-{self.index}x{attempt}",
            host="127.0.0.1",
            port=self.port,
            user="root",
            host_key=self.host_key.export_public_key().decode().strip(),
            engine_port=self.engine_port,
            price_usd_per_hour=0.0,
            created_at=0.0,
        )

    def write_record(self, folder: Path, *, attempt: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        temporary = folder / f".{self.index}.tmp"
        temporary.write_bytes(msgspec.json.encode(self.make_record(attempt=attempt)))
        temporary.rename(folder / f"{self.index}.json")

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", process.command or "true",
            env={"HOME": str(self.home), "PATH": os.environ["PATH"]},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await shell.communicate()
        process.stdout.write(output)
        process.exit(shell.returncode or 0)
