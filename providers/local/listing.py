"""Which local machines there are, how each is, and how one is ended, from a root folder and this computer's processes
alone. Called by LocalCloud and by the emulators."""

from __future__ import annotations

import time
from pathlib import Path

from providers.cloud import Endpoint, MachineState
from providers.local.folder import (
    FolderRecord,
    is_machine_id,
    list_folders,
    load_record,
    remove_folder,
    remove_leftovers,
)
from providers.local.processes import end_processes, find_keeper, find_marks, find_processes, send, wait_gone
from schemas.errors import CloudError

CLOUD = "local"
REGION = "local"
# How long a launch may take from the folder to the keeper's pid; what is older and has no process is garbage.
LAUNCH_GRACE_S = 10.0
KEEPER_END_TIMEOUT_S = 3.0


def describe_machine(folder: Path, *, name: str = "") -> MachineState | None:
    """How the machine of this folder is; None when it is gone, and then its folder is removed.

    name: what a mark says, for a machine that has processes but no folder.
    """
    folder = folder.resolve()
    record = load_record(folder)
    if record is not None and find_keeper(record) is not None:
        return make_state(record)
    is_young = record is not None and record.pid == 0 and time.time() - record.created_at < LAUNCH_GRACE_S
    if record is not None and is_young:
        return make_state(record)
    if find_processes(folder):
        record = record or FolderRecord(id=folder.name, name=name, price_usd_per_hour=0, expires_at=0, created_at=0)
        return make_state(record, failure="its main process is dead and others of its processes live")
    if record is not None or is_older(folder, LAUNCH_GRACE_S):
        remove_folder(folder)
    return None


def list_machines(root: Path) -> list[MachineState]:
    """Every machine under root, also one whose folder is gone while it has a living process; leftovers are removed."""
    root = root.resolve()
    remove_leftovers(root, older_than_s=LAUNCH_GRACE_S * 6)
    marks = find_marks(root)
    states = [describe_machine(folder, name=marks.get(folder, "")) for folder in sorted({*list_folders(root), *marks})]
    return [state for state in states if state is not None]


def terminate_machine(root: Path, id: str, *, keeper_timeout_s: float = KEEPER_END_TIMEOUT_S) -> None:
    """End a machine and every process of it, then remove its folder; already gone is success.

    Its keeper gets keeper_timeout_s to do that by itself; then everything is killed. Raises CloudError when a process
    survives even that.
    """
    if not is_machine_id(id):
        return
    folder = root.resolve() / id
    record = load_record(folder)
    keeper = find_keeper(record) if record is not None else None
    if keeper is not None:
        send(keeper, kill=False)
        wait_gone([keeper], time.monotonic() + keeper_timeout_s)
    survivors = end_processes(folder)
    if survivors:
        pids = " ".join(str(process.pid) for process in survivors)
        raise CloudError(
            f"these processes do not end: {pids}", where=f"local machine {id}", fix=f"End them by hand: kill -9 {pids}"
        )
    remove_folder(folder)


def make_state(record: FolderRecord, *, failure: str = "") -> MachineState:
    return MachineState(
        cloud=CLOUD,
        id=record.id,
        name=record.name,
        phase="failed" if failure else record.phase,
        endpoint=Endpoint(host=record.host, port=record.port, user="root") if record.port else None,
        price_usd_per_hour=record.price_usd_per_hour,
        region=REGION,
        created_at=record.created_at,
        detail=failure or record.detail,
    )


def is_older(folder: Path, age_s: float) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > age_s
    except FileNotFoundError:
        return False
