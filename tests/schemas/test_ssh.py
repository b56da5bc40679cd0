"""OpenSSH's arguments: strict, silent, and right for every path; tried with the real client."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from schemas.ssh import SshTarget, make_ssh_arguments, write_known_hosts
from tests.runtime.ssh_machine import SshMachine

ODD_NAMES = ["plain", "with  blanks", "it's", 'say "hi"', "100%h", "back\\slash", "#hash", "a=b,c"]


def make_target(**fields: object) -> SshTarget:
    values = {"host": "192.0.2.1", "port": 2222, "user": "ubuntu", "key_file": "/k", "known_hosts_file": "/h"}
    return SshTarget(**(values | {"alias": "lh-x"} | fields))  # type: ignore[arg-type]


def find_options(arguments: list[str]) -> dict[str, str]:
    options = [arguments[place + 1] for place, word in enumerate(arguments) if word == "-o"]
    return dict(option.split("=", 1) for option in options)


def test_nothing_is_asked_and_no_other_key_or_host_is_trusted() -> None:
    arguments = make_ssh_arguments(make_target(), connect_timeout_s=7)

    options = find_options(arguments)
    assert (arguments[0], arguments[-1]) == ("ssh", "ubuntu@192.0.2.1")
    assert arguments[1:5] == ["-F", "/dev/null", "-p", "2222"]
    assert {name: options[name] for name in ("BatchMode", "StrictHostKeyChecking", "IdentitiesOnly")} == {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
    }
    assert (options["IdentityAgent"], options["GlobalKnownHostsFile"]) == ("none", "/dev/null")
    assert (options["HostKeyAlias"], options["ConnectTimeout"]) == ("lh-x", "7")


def test_the_known_host_is_one_line_under_its_alias(tmp_path: Path) -> None:
    write_known_hosts(tmp_path / "h", "lh-x", "ssh-ed25519 AAAA")
    write_known_hosts(tmp_path / "h", "lh-x", "ssh-ed25519 BBBB")

    assert (tmp_path / "h").read_text() == "lh-x ssh-ed25519 BBBB\n"


@pytest.mark.wire
@pytest.mark.parametrize("name", ODD_NAMES)
async def test_ssh_finds_keys_in_folders_with_odd_names(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    machine = SshMachine(tmp_path, index=0, engine_port=1)
    await machine.start()
    machine.client_key.write_private_key(str(folder / "id"))
    (folder / "id").chmod(0o600)
    write_known_hosts(folder / "hosts", "lh-x", machine.host_key.export_public_key().decode().strip())
    target = make_target(
        host="127.0.0.1", port=machine.port, key_file=str(folder / "id"), known_hosts_file=str(folder / "hosts")
    )

    done = await run_ssh([*make_ssh_arguments(target), "echo there"])

    await machine.stop()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"there\n", b"")


async def run_ssh(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(
        lambda: subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    )
