"""`sudo` on an emulated Lambda host: runs the command as "root", with root's home and, like the real one, a fresh environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from providers.emulators.machines.machine_file import find_own_folder

# Marks a command as run by root: the docker shim refuses without it.
AS_ROOT = "LEASEHOLD_EMULATOR_ROOT"
_KEPT = ("PATH", "LANG", "TERM", "SHELL", "TMPDIR")
_WITH_VALUE = frozenset({"-u", "-g", "-p", "-C", "-h", "-r", "-t", "-T", "-U", "--user", "--group"})


def main(arguments: Sequence[str]) -> int:
    keep_all, kept, extra, command = read_arguments(arguments)
    if not command:
        return 0
    environment = make_environment(os.environ, keep_all=keep_all, kept=kept) | extra
    try:
        os.execvpe(command[0], command, environment)
    except OSError:
        sys.stderr.write(f"sudo: {command[0]}: command not found\n")
        return 1


def read_arguments(arguments: Sequence[str]) -> tuple[bool, list[str], dict[str, str], list[str]]:
    """Whether -E was given, names to keep, NAME=value words, and the command."""
    words = list(arguments)
    keep_all, kept, extra = False, [], {}
    while words and (words[0].startswith("-") or "=" in words[0]):
        word = words.pop(0)
        if word == "--":
            break
        if word.startswith("--preserve-env="):
            kept += word.split("=", 1)[1].split(",")
        elif word == "--preserve-env" or (word.startswith("-") and not word.startswith("--") and "E" in word):
            keep_all = True
        elif word in _WITH_VALUE:
            words.pop(0)
        elif not word.startswith("-"):
            name, _, value = word.partition("=")
            extra[name] = value
    return keep_all, kept, extra, words


def make_environment(environment: Mapping[str, str], *, keep_all: bool, kept: Sequence[str]) -> dict[str, str]:
    ours = {name for name in environment if name.startswith("LEASEHOLD_MACHINE_")}
    names = set(environment) if keep_all else {*_KEPT, *kept, *ours}
    home = {} if keep_all else {"HOME": str(find_own_folder() / "root")}
    identity = {"USER": "root", "LOGNAME": "root", "SUDO_USER": environment.get("USER", ""), AS_ROOT: "1"}
    return {name: value for name, value in environment.items() if name in names} | home | identity


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
