"""Where SSH answers, as a record, and OpenSSH's arguments for it. Used by the endpoint's probe, the tunnels and `./inv ssh`."""

from __future__ import annotations

from pathlib import Path

import msgspec


class SshTarget(msgspec.Struct, frozen=True, kw_only=True):
    """An SSH server with a pinned host key; `alias` is the name under which known_hosts_file lists that key."""

    host: str
    port: int
    user: str
    key_file: str
    known_hosts_file: str
    alias: str


def make_ssh_arguments(target: SshTarget, *, connect_timeout_s: int = 10) -> list[str]:
    """`ssh` with every option that makes it non-interactive and strict, up to and including the destination."""
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"IdentityFile={_quote(target.key_file)}",
        f"UserKnownHostsFile={_quote(target.known_hosts_file)}",
        "GlobalKnownHostsFile=/dev/null",
        f"HostKeyAlias={target.alias}",
        "HostKeyAlgorithms=ssh-ed25519",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PasswordAuthentication=no",
        f"ConnectTimeout={connect_timeout_s}",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=3",
        "UpdateHostKeys=no",
        "LogLevel=ERROR",
    ]
    arguments = ["ssh", "-F", "/dev/null", "-p", str(target.port)]
    for option in options:
        arguments += ["-o", option]
    return [*arguments, f"{target.user}@{target.host}"]


def _quote(path: str) -> str:
    """A path as one word of ssh's configuration, where blanks divide and % begins a name."""
    for special, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%")):
        path = path.replace(special, written)
    return f'"{path}"'


def write_known_hosts(path: Path, alias: str, host_key: str) -> None:
    """Write the one line that pins host_key (`ssh-ed25519 AAAA...`) under alias."""
    path.write_text(f"{alias} {host_key}\n", encoding="ascii")
