"""OpenSSH forwarding from a unix socket to an engine's port: opened, watched, opened again. One for each machine's replica."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from runtime.engines.backoff import Backoff
from runtime.engines.child import Child
from schemas.ssh import SshTarget, make_ssh_arguments

_log = logging.getLogger("leasehold.tunnel")
_STEADY_S = 20.0
_MESSAGE_LINES = 5

# ssh dies with the dispatcher, however that one dies: a helper waits for the end of the pipe that only the dispatcher
# holds open, then ends ssh (which has the shell's process id). A line through the pipe tells it that ssh ended by itself.
_GUARD = 'exec 3<&0; (read line <&3; [ "$line" = over ] || kill $$) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'


class Tunnel:
    """Keeps `socket_path` connected to 127.0.0.1:engine_port of the machine while run() runs."""

    def __init__(
        self, target: SshTarget, *, socket_path: Path, engine_port: int, backoff: Backoff | None = None
    ) -> None:
        self.target = target
        self.socket_path = socket_path
        self.engine_port = engine_port
        self.opened = 0
        self.last_message = ""
        self._backoff = backoff or Backoff(base_s=0.2, cap_s=10.0)
        self._child: Child | None = None

    @property
    def is_up(self) -> bool:
        """Whether ssh runs and has made the socket; what is behind it only a request can tell."""
        return self._child is not None and self._child.is_running and self.socket_path.exists()

    async def run(self) -> None:
        """Open the tunnel again whenever it ends; ends only by being cancelled, and then leaves no process."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._open_once()
            if loop.time() - began > _STEADY_S:
                self._backoff.reset()
            delay_s = self._backoff.next()
            _log.warning("tunnel to %s ended (%s); again in %.1f s", self.target.alias, self.last_message, delay_s)
            await asyncio.sleep(delay_s)

    async def _open_once(self) -> None:
        with contextlib.suppress(OSError):
            self.socket_path.unlink()  # a predecessor's: nobody answers there
        command = make_tunnel_arguments(self.target, self.socket_path, self.engine_port)
        child = Child(["sh", "-c", _GUARD, "tunnel", *command], has_stdin=True)
        guard_pipe = child.process.stdin
        assert guard_pipe is not None
        try:
            async with child:
                self._child = child
                self.opened += 1
                code = await child.wait()
                self.last_message = _pick_message(child.read_messages()) or f"ssh ended with {code}"
        finally:
            self._child = None
            with contextlib.suppress(OSError):
                guard_pipe.write(b"over\n")
                guard_pipe.close()
            with contextlib.suppress(OSError):
                self.socket_path.unlink()


def make_tunnel_arguments(target: SshTarget, socket_path: Path, engine_port: int) -> list[str]:
    """The whole ssh command line."""
    *options, destination = make_ssh_arguments(target)
    forward = f"{socket_path}:127.0.0.1:{engine_port}"
    extra = ["-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes", "-N", "-T", "-L", forward]
    return [*options, *extra, destination]


def _pick_message(lines: list[str]) -> str:
    """What ssh said last; it says something for each connection that the engine refuses, which is no news here."""
    news = [line.strip() for line in lines if not (line.startswith("channel ") and "open failed" in line)]
    return "; ".join(line for line in news[-_MESSAGE_LINES:] if line)
