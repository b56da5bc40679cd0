"""The commands of an emulated GPU host, as folders of small scripts that go first on its PATH.

A machine's scripts run on this computer, perhaps as root. So every command that would install something, or change the
computer, has a stand-in here; and a machine whose PATH does not find the stand-ins first refuses to start.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from providers.local.folder import STANDARD_PATH
from providers.local.launch import write_command

_PACKAGE = "providers.emulators.shims"
_POWER = dict.fromkeys(("shutdown", "poweroff", "halt", "reboot", "systemctl", "service"), "power")
_HOST = {"apt-get": "apt_get", "apt": "apt_get", "sudo": "sudo", **_POWER}
SHIMS = {
    "runpod": {**_HOST, "vllm": "vllm", "runpodctl": "runpodctl"},
    "lambda": {**_HOST, "docker": "docker"},
    "container": {"vllm": "vllm", **_HOST},
}
REFUSED = (
    "apk",
    "aptitude",
    "conda",
    "crontab",
    "dnf",
    "docker",
    "dpkg",
    "flatpak",
    "groupadd",
    "init",
    "insmod",
    "iptables",
    "microdnf",
    "modprobe",
    "mount",
    "nft",
    "npm",
    "pacman",
    "pip",
    "pip3",
    "podman",
    "rpm",
    "snap",
    "sysctl",
    "systemd-run",
    "telinit",
    "ufw",
    "umount",
    "useradd",
    "usermod",
    "uv",
    "yum",
    "zypper",
)
# Looked up to see whether a machine's PATH is right.
_SENTINEL = "apt-get"
UNSAFE_PATH = 97


def write_shims(root: Path) -> None:
    """Write one folder for each kind of host, and one for the inside of a container on a Lambda host."""
    for folder, commands in SHIMS.items():
        (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for command, module in commands.items():
            name = (command,) if module == "power" else ()
            write_command(root / folder / command, f"{_PACKAGE}.{module}", *name)
        for command in REFUSED:
            if command not in commands:
                write_script(root / folder / command, f"echo '{command}: not on an emulated machine' >&2; exit 127")
        write_python(root / folder / "python3")


def write_python(path: Path) -> None:
    """This computer's python3, which must not install packages into this computer."""
    real = shutil.which("python3", path=STANDARD_PATH)
    if real is not None:
        refusal = "echo 'pip: an emulated machine installs nothing' >&2; exit 1"
        write_script(path, f'case "${{1-}} ${{2-}}" in "-m pip" | "-m ensurepip") {refusal} ;; esac\nexec {real} "$@"')


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def make_guard(folder: Path) -> str:
    """Shell text that ends a start script unless the stand-ins of this folder are what its PATH finds."""
    wanted = shlex.quote(str(folder / _SENTINEL))
    return f'[ "$(command -v {_SENTINEL})" = {wanted} ] || {{ echo "unsafe PATH: $PATH" >&2; exit {UNSAFE_PATH}; }}\n'


def has_real_sshd() -> bool:
    """Whether a start script that asks for sshd could reach this computer's own."""
    return shutil.which("sshd", path=STANDARD_PATH) is not None
