"""A local machine's folder: what it was asked to be (spec.json) and what it is (machine.json). Used by all of this folder
modules and by the emulators; nothing here starts or ends a process."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from providers.cloud import Phase
from schemas.errors import CloudError
from schemas.files import hold_lock, replace_file

VERSION = 1
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOCK_TIMEOUT_S = 2.0
# A folder's name while it is being made or removed; such folders are no machines.
_HIDDEN = "."
_MACHINE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine shall be. Never log one: it may carry a private host key and a pod's environment.

    public_key: one line, or several, as in authorized_keys. port 0: any free one. shims: folders put first on PATH.
    start_script: shell text run like a container's first process, with machine_env in its environment; SSH answers only
    when it runs `sshd`, and when it ends the machine has failed. Without one the machine serves SSH by itself.
    """

    id: str
    name: str
    public_key: str
    host_private_key: str
    expires_at: int
    heartbeat_timeout_s: float = 0
    price_usd_per_hour: float = 0.0
    port: int = 0
    shims: tuple[str, ...] = ()
    search_path: str = STANDARD_PATH
    machine_env: dict[str, str] = {}
    start_script: str = ""
    fault: str = ""
    fault_s: float = 0.0

    def __repr__(self) -> str:
        return f"MachineSpec(id={self.id!r}, name={self.name!r})"


class FolderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """machine.json: what a machine is. Times are seconds since 1970; pid and port are 0 until known; process_birth: as of
    schemas.process_birth."""

    version: int = VERSION
    id: str
    name: str
    pid: int = 0
    process_started_at: float = 0.0
    process_birth: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    price_usd_per_hour: float
    expires_at: int
    created_at: float
    phase: Phase = "starting"
    detail: str = ""


def is_machine_id(text: str) -> bool:
    """Whether text can be a machine's id, and so a folder's name; everything else must never become a path."""
    return _MACHINE_ID.fullmatch(text) is not None


def prepare_folder(root: Path, spec: MachineSpec) -> Path:
    """Make a machine's folder, complete or not at all: it is filled under a hidden name, then renamed.

    Raises FileExistsError when there is a machine of that id.
    """
    if not is_machine_id(spec.id):
        raise ValueError(f"not a machine id: {spec.id!r}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = root / f"{_HIDDEN}new-{spec.id}-{time.monotonic_ns()}"
    hidden.mkdir(mode=0o700)
    folder = root / spec.id
    try:
        fill_folder(hidden, spec)
        if folder.exists():
            raise FileExistsError(f"machine {spec.id} exists already")
        hidden.rename(folder)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return folder


def fill_folder(folder: Path, spec: MachineSpec) -> None:
    for name in ("home", "home/.leasehold", "bin"):
        (folder / name).mkdir(mode=0o700)
    replace_file(folder / "host_key", spec.host_private_key.encode(), mode=0o600)
    replace_file(folder / "authorized_keys", spec.public_key.encode() + b"\n", mode=0o600)
    without_key = msgspec.structs.replace(spec, host_private_key="")
    replace_file(folder / "spec.json", msgspec.json.encode(without_key), mode=0o600)
    record = FolderRecord(
        id=spec.id,
        name=spec.name,
        price_usd_per_hour=spec.price_usd_per_hour,
        expires_at=spec.expires_at,
        created_at=time.time(),
    )
    replace_file(folder / "machine.json", msgspec.json.encode(record), durable=True)


def load_spec(folder: Path) -> MachineSpec:
    """Read spec.json; its host_private_key is empty, the key is in the file host_key."""
    try:
        return msgspec.json.decode((folder / "spec.json").read_bytes(), type=MachineSpec)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CloudError(f"cannot read what this machine shall be: {error}", where=str(folder)) from error


def load_record(folder: Path) -> FolderRecord | None:
    """Read machine.json; None when the folder or the file is gone, torn, or of a version we do not know."""
    try:
        record = msgspec.json.decode((folder / "machine.json").read_bytes(), type=FolderRecord)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return record if record.version == VERSION else None


def update_record(folder: Path, **changes: Any) -> FolderRecord | None:
    """Change fields of machine.json, one writer at a time; None (and nothing written) when the machine is gone."""
    with contextlib.suppress(FileNotFoundError), hold_lock(folder / ".lock", exclusive=True, timeout_s=LOCK_TIMEOUT_S):
        record = load_record(folder)
        if record is not None:
            record = msgspec.structs.replace(record, **changes)
            replace_file(folder / "machine.json", msgspec.json.encode(record), durable=True)
        return record
    return None


def list_folders(root: Path) -> Iterator[Path]:
    """Every machine's folder, in the order of their ids."""
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(path for path in root.iterdir() if is_machine_id(path.name) and path.is_dir())


def remove_folder(folder: Path) -> None:
    """Remove a machine's folder; it vanishes from the listing at once. Already gone is success."""
    hidden = folder.with_name(f"{_HIDDEN}gone-{folder.name}-{time.monotonic_ns()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def remove_leftovers(root: Path, *, older_than_s: float) -> None:
    """Remove what a launch or a removal that was killed left under a hidden name."""
    with contextlib.suppress(FileNotFoundError):
        for path in root.glob(f"{_HIDDEN}*-*-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_than_s:
                    shutil.rmtree(path, ignore_errors=True)
