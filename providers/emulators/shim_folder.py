"""The commands of an emulated GPU host, as folders of two-line scripts that go first on its PATH."""

from __future__ import annotations

from pathlib import Path

from providers.local_launch import write_command

_PACKAGE = "providers.emulators.shims"
# Commands that must never reach the real ones of this computer stand in both host folders.
_DANGEROUS = {name: "power" for name in ("shutdown", "poweroff", "halt", "reboot", "systemctl", "service")}
_HOST = {"nvidia-smi": "nvidia_smi", "apt-get": "apt_get", "apt": "apt_get", **_DANGEROUS}
SHIMS = {
    "runpod": {**_HOST, "vllm": "vllm", "runpodctl": "runpodctl"},
    "lambda": {**_HOST, "docker": "docker", "sudo": "sudo"},
    "container": {"vllm": "vllm", "nvidia-smi": "nvidia_smi", **_DANGEROUS},
}


def write_shims(root: Path) -> None:
    """Write one folder for each kind of host, and one for the inside of a container on a Lambda host."""
    for folder, commands in SHIMS.items():
        (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for command, module in commands.items():
            name = (command,) if module == "power" else ()
            write_command(root / folder / command, f"{_PACKAGE}.{module}", *name)
