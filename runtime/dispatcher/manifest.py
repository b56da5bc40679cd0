"""What the dispatcher is told: manifest.json, written by the Dispatch resource, read once when the dispatcher starts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from schemas.errors import LeaseholdError

VERSION = 1


class DispatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are sent. max_concurrency is per machine (0 = find out), request_timeout_s 0 = from speed and max_tokens.

    line_limit: only the first so many lines of the input, 0 = all. ordered: rewrite the output in input order at the end.
    """

    max_concurrency: int = 0
    max_retries: int = 5
    request_timeout_s: float = 0.0
    order: Literal["input", "prefix"] = "input"
    ordered: bool = False
    hedge: bool = True
    line_limit: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All paths are absolute. model: the name that the engine serves. min_replicas: informative, for the display.

    The input is read from `input`; output.jsonl, error.jsonl (.part while running), input.index, progress.json,
    stats.jsonl and dispatch.lock are written to `output_dir`. Machines appear and leave as files in machines_dir:
    <index>.json (schemas.machine.MachineRecord) joins; <index>.leaving beside it asks to drain, answered by
    <index>.drained; a vanished <index>.json leaves at once. engine_key_file: bearer key for the engines, "" = none;
    engine_key_env: the same, in this variable of the dispatcher's environment.
    base_urls: servers that run already; then there are no machines and no tunnels. on_end: a command that is started, and
    not waited for, when this dispatcher has ended; it sees to the machines when nobody else does. seal: results are sealed
    in S3 while they come, at the prefix that claim.json in output_dir names. budget_file: says until when the run's money
    lasts (schemas.budget.Budget), "" = there is no such file.
    """

    version: int = VERSION
    run: str
    input: str
    output_dir: str
    endpoint: str
    model: str
    replicas: int = 1
    min_replicas: int = 1
    deadline: float = 0.0
    options: DispatchOptions = DispatchOptions()
    machines_dir: str = ""
    socket_dir: str = ""
    ssh_key_file: str = ""
    engine_key_file: str = ""
    engine_key_env: str = ""
    base_urls: tuple[str, ...] = ()
    on_end: tuple[str, ...] = ()
    seal: bool = False
    budget_file: str = ""


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest; raises LeaseholdError when it is missing, torn, or of another version."""
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LeaseholdError(f"cannot read the manifest: {error}", where=str(path)) from error
    if manifest.version != VERSION:
        raise LeaseholdError(f"this is version {manifest.version}, not {VERSION}", where=str(path))
    return manifest
