"""Jobs, offers, plans and run folders as the tests of stacks need them: everything right, to be changed in one place each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from providers.cloud import Offer
from providers.lease.intents import append_intent
from providers.lease.lease import LeaseRecord, open_lease
from schemas.job import Candidate, Job, Limits, Machines
from schemas.machine import MachineRecord
from schemas.names import make_machine_name
from schemas.status import Progress, RequestCounts
from schemas.template import Accelerator, EngineSpec, ModelSource, Template, TemplateSpec
from stacks.planning.estimate import InputSummary
from stacks.planning.plan import Plan
from stacks.planning.plan_making import make_plan
from stacks.run_folder import RunFolder
from tests.providers.scripted_cloud import make_intent

TOKEN = "abcdefghijkl"
START = 1_790_000_000.0
EXPIRES_AT = int(START) + 3600
OFFER_KEY = "local/cpu/1//local"


def make_offer(**fields: Any) -> Offer:
    values: dict[str, Any] = {
        "cloud": "local",
        "gpu": "cpu",
        "gpu_id": "cpu",
        "count": 1,
        "memory_gb": 16,
        "region": "local",
        "price_usd_per_hour": 0.0,
    }
    return Offer(**(values | fields))


def make_h100(region: str = "US-1", price: float = 3.0, **fields: Any) -> Offer:
    named = {"cloud": "runpod", "gpu": "H100", "gpu_id": "NVIDIA H100 80GB HBM3", "memory_gb": 80, "tier": "secure"}
    return make_offer(**(named | {"region": region, "price_usd_per_hour": price} | fields))


def make_job(
    *, candidates: Sequence[Candidate] = (Candidate(cloud="local"),), limits: Limits | None = None, **fields: Any
) -> Job:
    machines = {name: fields.pop(name) for name in ("replicas", "min_replicas", "rank") if name in fields}
    values: dict[str, Any] = {
        "name": "tickets",
        "input": "/data/tickets.jsonl",
        "template": "tiny@1.0.0",
        "machines": Machines(candidates=tuple(candidates), **machines),
        "limits": limits or Limits(),
        "source": "/jobs/tickets.yaml",
    }
    return Job(**(values | fields))


def make_template(secret: str = "") -> Template:
    return Template(
        name="tiny",
        version="1.0.0",
        spec=TemplateSpec(
            engine=EngineSpec(type="llamacpp", ready_timeout_s=60),
            model_source=ModelSource(type="local", uri="builtin:tiny-chat", auth_secret_ref=secret),
            accelerator=Accelerator(type="cpu"),
            supported_endpoints=("/v1/chat/completions",),
        ),
    )


def make_summary(requests: int = 100) -> InputSummary:
    return InputSummary(requests=requests, bytes=400 * requests, max_tokens_sum=50 * requests)


def plan_for(job: Job, *offers: Offer, run: str = "tickets-1", now: float = START, **fields: Any) -> Plan:
    """A plan where every offer belongs to the job's first candidate."""
    values: dict[str, Any] = {
        "template": make_template(),
        "summary": make_summary(),
        "offers": [(job.machines.candidates[0], offers or (make_offer(),))],
        "ports": range(20000, 20000 + job.machines.replicas),
        "settle_s": 2.0,
    }
    return make_plan(run=run, job=job, now=now, **(values | fields))


def make_folder(parent: Path, run: str = "tickets-1") -> RunFolder:
    folder = RunFolder(parent / run)
    folder.make()
    return folder


def make_lease(folder: RunFolder, now: float = START) -> LeaseRecord:
    return open_lease(
        folder.root, run=folder.run, expires_at=int(now) + 3600, clouds=["local"], now=now, make_token=lambda: TOKEN
    )


def name_machine(index: int = 0, attempt: int = 1) -> str:
    return make_machine_name(token=TOKEN, index=index, attempt=attempt, expires_at=EXPIRES_AT)


def note_machine(
    folder: RunFolder, id: str, *outcomes: str, index: int = 0, attempt: int = 1, at: float = START, **fields: Any
) -> str:
    """Write the intents of one machine: its create, then what came of it, a minute apart; its name."""
    name = name_machine(index, attempt)
    (folder.root / "intents.jsonl").touch()
    fields = {"cloud": "local", "offer": OFFER_KEY, "attempt": attempt} | fields
    append_intent(folder.root, make_intent(name, time=at, **fields))
    for number, outcome in enumerate(outcomes):
        kind = "answer" if outcome == "created" else "resolved"
        append_intent(
            folder.root, make_intent(name, time=at + 60 * number, kind=kind, id=id, outcome=outcome, **fields)
        )
    return name


def make_record(index: int = 0, attempt: int = 1, **fields: Any) -> MachineRecord:
    values: dict[str, Any] = {
        "cloud": "local",
        "id": f"m{index}",
        "name": name_machine(index, attempt),
        "host": "127.0.0.1",
        "port": 2222,
        "user": "root",
        "host_key": "ssh-ed25519 AAAA",
        "engine_port": 20000,
        "price_usd_per_hour": 2.5,
        "created_at": START,
    }
    return MachineRecord(index=index, attempt=attempt, **(values | fields))


def join_machine(folder: RunFolder, record: MachineRecord, at: float | None = None) -> None:
    path = folder.machine(record.index)
    path.write_bytes(msgspec.json.encode(record))
    if at is not None:
        os.utime(path, (at, at))


def make_progress(
    state: str = "running", *, total: int = 10, completed: int = 4, failed: int = 0, **fields: Any
) -> Progress:
    counts = RequestCounts(total=total, completed=completed, failed=failed)
    values = {"pid": 1, "state": state, "request_counts": counts, "started_at": START, "updated_at": START}
    return Progress(**(values | fields))


def write_progress(folder: RunFolder, progress: Progress) -> None:
    folder.progress.write_bytes(msgspec.json.encode(progress))
