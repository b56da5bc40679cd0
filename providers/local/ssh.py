"""A local machine's SSH server. Run by the machine's keeper, or, in a machine that boots like a container, by its start
script as `sshd` (see local_machine)."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from providers.local.boot_log import write_log
from providers.local.environment import make_environment
from providers.local.folder import load_spec, update_record
from providers.local.session import Process, run_session

FORWARD_HOSTS = frozenset({"127.0.0.1", "localhost"})


def main(arguments: Sequence[str]) -> int:
    """`python -m providers.local.ssh FOLDER [sshd's arguments]`: of those, -h and -o AuthorizedKeysFile= count."""
    parser = argparse.ArgumentParser(prog="sshd", add_help=False, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-h", dest="host_key", type=Path)
    parser.add_argument("-o", dest="options", action="append", default=[])
    known, _ignored = parser.parse_known_args(arguments)
    settings = dict(option.split("=", 1) for option in known.options if "=" in option)
    authorized = settings.get("AuthorizedKeysFile")
    return run_server(known.folder, host_key=known.host_key, authorized_keys=Path(authorized) if authorized else None)


def run_server(folder: Path, *, host_key: Path | None = None, authorized_keys: Path | None = None) -> int:
    """Serve until ended by a signal; returns 1, with the reason in the log, when it cannot serve."""
    try:
        asyncio.run(serve(folder, host_key or folder / "host_key", authorized_keys or folder / "authorized_keys"))
    except (OSError, ValueError, asyncssh.Error) as error:
        write_log(f"the SSH server cannot serve: {error}")
        return 1
    return 0


async def serve(folder: Path, host_key: Path, authorized_keys: Path) -> None:
    spec = load_spec(folder)
    await asyncio.sleep(spec.fault_s if spec.fault == "delay" else 0)
    key = (
        asyncssh.generate_private_key("ssh-ed25519")
        if spec.fault == "host-key"
        else asyncssh.read_private_key(host_key)
    )

    async def run(process: Process) -> None:
        user = process.get_extra_info("username")
        await run_session(process, make_environment(folder, spec, user=user))

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        spec.port,
        server_factory=ForwardingServer,
        server_host_keys=[key],
        authorized_client_keys=str(authorized_keys),
        process_factory=run,
        encoding=None,
        line_editor=False,
        allow_scp=False,
        x11_forwarding=False,
        agent_forwarding=False,
        login_timeout=30,
        keepalive_interval=30,
        keepalive_count_max=4,
    )
    port = acceptor.get_port()
    update_record(folder, port=port, phase="ready")
    write_log(f"SSH answers on 127.0.0.1:{port}, pid {os.getpid()}")
    await acceptor.wait_closed()


class ForwardingServer(asyncssh.SSHServer):
    """Forwards to ports of this computer only."""

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        if dest_host not in FORWARD_HOSTS:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "only 127.0.0.1 can be reached through this machine"
            )
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
