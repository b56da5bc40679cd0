"""Runs as the report's tests need them: folders with machines, stats, errors and events, written as the real parts write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from providers.lease.lease import LEASE_FILE
from runtime.dispatcher.durations import DurationCounts
from schemas.durations import Durations
from schemas.job import Candidate, Limits
from schemas.status import Event, MachineStatus, Progress, Status, Usage, format_time
from stacks.planning.plan import Plan, save_plan
from stacks.run_folder import RunFolder
from tests.stacks.run_files import (
    START,
    join_machine,
    make_folder,
    make_h100,
    make_job,
    make_lease,
    make_progress,
    make_record,
    note_machine,
    plan_for,
    write_progress,
)

OFFER = "runpod/NVIDIA H100 80GB HBM3/1/secure/US-1"
HOUR = 3600.0


def make_run(parent: Path, run: str = "tickets-1", *, replicas: int = 2, **job: Any) -> tuple[RunFolder, Plan]:
    """A folder with its plan, its lease and nothing else."""
    folder = make_folder(parent, run)
    made = make_job(
        replicas=replicas, candidates=[Candidate(cloud="runpod")], limits=Limits(max_usd=25, max_hours=6), **job
    )
    plan = plan_for(made, make_h100(), run=run)
    save_plan(plan, folder.plan)
    make_lease(folder)
    return folder, plan


def add_machine(
    folder: RunFolder,
    id: str,
    *outcomes: str,
    index: int = 0,
    attempt: int = 1,
    at: float = START,
    joined_at: float | None = None,
) -> str:
    """A machine at 3 USD an hour; outcomes a minute apart."""
    fields = {"cloud": "runpod", "offer": OFFER, "price_usd_per_hour": 3.0}
    name = note_machine(folder, id, *outcomes, index=index, attempt=attempt, at=at, **fields)
    if joined_at is not None:
        record = make_record(index, attempt, id=id, name=name)
        join_machine(folder, record, joined_at)
        if "deleted" in outcomes:
            folder.machine(index).rename(folder.machines / f"{name}.left")
    return name


def make_lost_run(parent: Path, run: str = "tickets-1") -> RunFolder:
    """Two machines; machine 1 died at 600 s and was replaced; 3 lines of 100 failed; all given back."""
    folder, _ = make_run(parent, run)
    add_machine(folder, "m0", "created", index=0, at=START, joined_at=START + 120)
    add_machine(folder, "m1", "created", index=1, at=START, joined_at=START + 180)
    _note_gone(folder, "m1", index=1, attempt=1, at=START + 660)
    add_machine(folder, "m2", "created", index=1, attempt=2, at=START + 700, joined_at=START + 800)
    _note_gone(folder, "m0", index=0, attempt=1, at=START + 1300)
    _note_gone(folder, "m2", index=1, attempt=2, at=START + 1300)
    add_event(
        folder, START + 600, "machine_died", "machine 1 (runpod m1) died: its cloud does not know it any more", id="m1"
    )
    write_stats(folder, [(START + 300 + 100 * n, [(0, 10 * n, 0), (1, 5 * n, 0)]) for n in range(1, 7)])
    write_errors(folder, [refuse(n, "the prompt is too long") for n in range(3)])
    usage = Usage(input_tokens=9_000, output_tokens=5_000)
    progress = make_progress(
        "finished", total=100, completed=97, failed=3, first_sent_at=START + 120, ended_at=START + 1200, usage=usage
    )
    write_progress(folder, progress)
    end_run(folder, total=100, completed=97, failed=3, usage=usage)
    return folder


def end_run(folder: RunFolder, *, total: int, completed: int, failed: int, **fields: Any) -> None:
    """The life cycle's last word."""
    values: dict[str, Any] = {
        "run": folder.run,
        "job": "tickets",
        "state": "completed",
        "released": "verified",
        "request_counts": {"total": total, "completed": completed, "failed": failed},
        "started_at": format_time(START),
        "ended_at": format_time(START + 1400),
        "exit_code": 10 if failed else 0,
        "message": f"{completed} of {total} requests answered",
    }
    folder.status.write_bytes(msgspec.json.encode(values | fields))


def leave_unverified(folder: RunFolder) -> None:
    """The release was not proven: one machine may still be there."""
    left = MachineStatus(index=0, cloud="runpod", id="m0", name="lh", state="unconfirmed", usd_per_hour=3.0)
    end_run(folder, total=100, completed=100, failed=0, released="unverified", exit_code=12, machines=(left,))


def add_event(folder: RunFolder, at: float, event: str, message: str, **data: Any) -> None:
    record = Event(time=format_time(at), source="cloud", event=event, message=message, data=data)
    with folder.events.open("ab") as file:
        file.write(msgspec.json.encode(record) + b"\n")


def write_stats(folder: RunFolder, lines: Iterable[tuple[float, Sequence[tuple[int, int, int]]]]) -> None:
    """Each line: its time, and (index, completed, failed) of each replica; 10 tokens an answer."""
    with (folder.root / "stats.jsonl").open("w") as file:
        for time, replicas in lines:
            told = [
                {
                    "index": index,
                    "state": "ready",
                    "completed": completed,
                    "failed": failed,
                    "output_tokens": 10 * completed,
                    "p50_s": 0.2,
                    "p90_s": 0.4,
                    "p99_s": 0.8,
                }
                for index, completed, failed in replicas
            ]
            file.write(json.dumps({"version": 1, "time": time, "replicas": told}) + "\n")


def count(durations_s: Iterable[float]) -> Durations:
    """As a dispatcher counts them."""
    counts = DurationCounts()
    for duration_s in durations_s:
        counts.add(duration_s)
    return counts.make_record()


def count_durations(folder: RunFolder, durations_s: Iterable[float]) -> None:
    """The run's dispatcher has told how long each answer took."""
    progress = msgspec.json.decode(folder.progress.read_bytes(), type=Progress)
    write_progress(folder, msgspec.structs.replace(progress, durations=count(durations_s)))


def refuse(number: int, message: str, *, status: int = 400, custom_id: str = "") -> dict[str, Any]:
    """A line of error.jsonl for an HTTP error."""
    body = {"error": {"message": message, "code": status}}
    response = {"status_code": status, "request_id": "r", "body": body}
    return {
        "id": f"batch_req_x{number:08x}",
        "custom_id": custom_id or f"id-{number}",
        "response": response,
        "error": None,
    }


def fail(number: int, code: str, message: str = "") -> dict[str, Any]:
    """A line of error.jsonl for a request without an answer."""
    error = {"code": code, "message": message}
    return {"id": f"batch_req_x{number:08x}", "custom_id": f"id-{number}", "response": None, "error": error}


def write_errors(folder: RunFolder, lines: Iterable[dict[str, Any]], name: str = "error.jsonl") -> None:
    with (folder.root / name).open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def read_status_file(folder: RunFolder) -> Status:
    return msgspec.json.decode(folder.status.read_bytes(), type=Status)


def forget_lease(folder: RunFolder) -> None:
    (folder.root / LEASE_FILE).unlink()


def _note_gone(folder: RunFolder, id: str, *, index: int, attempt: int, at: float) -> None:
    """As the sweep writes it, and the machine's record put aside."""
    fields = {"cloud": "runpod", "offer": OFFER, "price_usd_per_hour": 3.0}
    name = note_machine(folder, id, "deleted", index=index, attempt=attempt, at=at, **fields)
    path = folder.machine(index)
    if path.exists() and msgspec.json.decode(path.read_bytes())["id"] == id:
        path.rename(folder.machines / f"{name}.left")
