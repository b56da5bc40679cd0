"""`sshd` on an emulated machine: as strict as the real one about its arguments and files, then the local machine's SSH server."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from providers.emulators.machines.machine_file import find_own_folder, load_machine_file
from providers.local.folder import load_record
from providers.local.ssh import run_server

_WITH_VALUE = "bCcEfghiIkoprtTuV"
_START_TIMEOUT_S = 10.0


class SshdOptions(msgspec.Struct, kw_only=True):
    port: int = 22
    host_keys: list[str] = []
    authorized_keys: str = ".ssh/authorized_keys"
    foreground: bool = False
    test_only: bool = False
    strict_modes: bool = True


class Complaint(Exception):
    """What the real sshd would print before it gives up."""


def main(arguments: Sequence[str]) -> int:
    folder = find_own_folder()
    home = Path(os.environ["HOME"])
    try:
        options = read_options(arguments)
        host_key = choose_host_key(options)
        authorized = check_authorized_keys(home / options.authorized_keys, options)
    except Complaint as complaint:
        say(str(complaint))
        return 1
    if options.test_only:
        return 0
    if options.port not in load_machine_file(folder).public_ports:
        say(f"Server listening on 0.0.0.0 port {options.port}, which is not a public port of this machine.")
        while True:
            time.sleep(60)
    if not options.foreground and os.fork():
        return wait_until_it_serves(folder)
    return run_server(folder, host_key=host_key, authorized_keys=authorized)


def read_options(arguments: Sequence[str]) -> SshdOptions:
    """sshd's own syntax: flags may be joined (`-De`), a value follows its flag with or without a blank."""
    options = SshdOptions(host_keys=[])
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            raise Complaint(f"Extra argument {word}.")
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _WITH_VALUE:
                if not letters and not words:
                    raise Complaint(f"option requires an argument -- '{letter}'")
                take_value(options, letter, letters or words.pop(0))
                break
            options.foreground |= letter in "Dd"
            options.test_only |= letter in "tT"
    return options


def take_value(options: SshdOptions, letter: str, value: str) -> None:
    if letter == "p":
        options.port = int(value)
    elif letter == "h":
        options.host_keys.append(value)
    elif letter == "f" and value != "/dev/null" and not Path(value).is_file():
        raise Complaint(f"{value}: No such file or directory")
    elif letter == "f":
        read_configuration(options, Path(value))
    elif letter == "o":
        name, _, setting = value.replace("=", " ", 1).strip().partition(" ")
        take_setting(options, name, setting.strip())


def read_configuration(options: SshdOptions, path: Path) -> None:
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        name, _, setting = line.strip().partition(" ")
        if name and not name.startswith("#"):
            take_setting(options, name, setting.strip())


def take_setting(options: SshdOptions, name: str, setting: str) -> None:
    name = name.lower()
    if name == "port":
        options.port = int(setting)
    elif name == "hostkey":
        options.host_keys.append(setting)
    elif name == "authorizedkeysfile":
        options.authorized_keys = setting.split()[0].replace("%h/", "")
    elif name == "strictmodes":
        options.strict_modes = setting.lower() != "no"


def choose_host_key(options: SshdOptions) -> Path:
    """The first key that the real sshd would load; it ignores a private key that others may read."""
    for name in options.host_keys:
        path = Path(name)
        if not path.is_file():
            say(f'Unable to load host key "{name}": No such file or directory')
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            say(f'Permissions {stat.S_IMODE(path.stat().st_mode):#o} for "{name}" are too open: key ignored.')
        else:
            return path
    raise Complaint("sshd: no hostkeys available -- exiting.")


def check_authorized_keys(path: Path, options: SshdOptions) -> Path:
    """An empty list in the place of a file that the real sshd would not trust or find."""
    trusted = path.is_file() and not (options.strict_modes and any(map(is_open_to_others, [path, path.parent])))
    if trusted:
        return path
    say(f"Authentication refused: bad ownership or modes, or no file: {path}")
    empty = find_own_folder() / "no_authorized_keys"
    empty.touch(mode=0o600)
    return empty


def is_open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o022)


def wait_until_it_serves(folder: Path) -> int:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        record = load_record(folder)
        if record is not None and record.phase == "ready":
            return 0
        time.sleep(0.02)
    return 1


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
