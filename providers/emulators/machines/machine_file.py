"""emulator.json in a machine's folder: what the commands on an emulated machine must know. Written by Machines, read by shims."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from schemas.files import replace_file

NAME = "emulator.json"
# Set in every process of a local machine (providers.local.processes).
MARK_FOLDER = "LEASEHOLD_MACHINE_FOLDER"


class MachineFile(msgspec.Struct, frozen=True, kw_only=True):
    """gpu_memory_mib is of one GPU; public_ports maps a port inside the machine to the one on 127.0.0.1.

    The last three are knobs: see providers.emulators.knobs.
    """

    cloud: str
    id: str
    api_url: str
    gpu_name: str
    gpu_count: int
    gpu_memory_mib: int
    public_ports: dict[int, int] = {}
    shim_root: str = ""
    nvidia_smi: str = ""
    engine_crash: str = ""
    apt_get_fails: bool = False


def write_machine_file(folder: Path, content: MachineFile) -> None:
    replace_file(folder / NAME, msgspec.json.encode(content), mode=0o600)


def load_machine_file(folder: Path) -> MachineFile:
    return msgspec.json.decode((folder / NAME).read_bytes(), type=MachineFile)


def find_own_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The folder of the machine that this process is a part of."""
    return Path((os.environ if environment is None else environment)[MARK_FOLDER])
