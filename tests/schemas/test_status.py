"""Records that leave the process: each comes back as it was, has a version where it is a whole file, and may grow."""

from __future__ import annotations

import json
from typing import get_args

import msgspec
import pytest

from providers.lease.intents import Intent
from providers.lease.lease import LeaseRecord
from providers.lease.proof import CloudProof, Proof, SkippedCloud, TerminatedMachine
from providers.lease.termination import UnconfirmedMachine
from runtime.dispatcher.manifest import DispatchOptions, Manifest
from schemas.failure import Failure
from schemas.machine import MachineRecord
from schemas.status import (
    FINAL_STATES,
    Event,
    MachineStatus,
    Progress,
    ReplicaProgress,
    RequestCounts,
    State,
    Status,
    Usage,
    format_time,
)
from stacks.process_mark import ProcessMark
from stacks.runs.attempts import Attempt
from stacks.runs.receipt import MachineReceipt, Receipt
from stacks.runs.run_processes import RunProcesses

COUNTS = RequestCounts(total=10, completed=7, failed=1)
USAGE = Usage(input_tokens=1, cached_tokens=2, output_tokens=3, reasoning_tokens=4)
PROOF = Proof(
    prefix="lh-x-",
    revoked_at=1.5,
    proven_at=9.5,
    clouds=(
        CloudProof(
            cloud="runpod",
            listings=(7.0, 9.0),
            counted_from=6.0,
            terminated=(TerminatedMachine(id="p", name="n", price_usd_per_hour=2.5, asked_at=3.0, gone_at=4.0),),
            keys_removed=("k",),
        ),
    ),
    skipped=(SkippedCloud(cloud="lambda", reason="no key"),),
)
FILES: dict[str, msgspec.Struct] = {
    "status.json": Status(
        run="t-1",
        job="t",
        state="in_progress",
        released="unverified",
        request_counts=COUNTS,
        usage=USAGE,
        usd_so_far=1.25,
        machines=(MachineStatus(index=0, cloud="runpod", id="p", name="n", state="joined", usd_per_hour=2.5),),
        output_file="/o",
        started_at="2026-11-24T10:00:00.000Z",
        exit_code=12,
        message="zwölf\nZeilen",
    ),
    "progress.json": Progress(
        pid=7,
        state="stopped",
        request_counts=COUNTS,
        usage=USAGE,
        eta_s=None,
        replicas=(ReplicaProgress(index=0, state="draining", in_flight=3, window=4, completed=5),),
        started_at=1.0,
        updated_at=2.0,
        stop_reason="budget_exceeded",
    ),
    "machines/N.json": MachineRecord(
        index=0, attempt=1, cloud="lambda", id="i", name="n", host="h", port=22, user="ubuntu",
        host_key="ssh-ed25519 A", engine_port=8000, price_usd_per_hour=2.5, created_at=1.0, joined_at=2.0,
    ),
    "manifest.json": Manifest(
        run="t-1", input="/i", output_dir="/o", endpoint="/v1/embeddings", model="m",
        options=DispatchOptions(max_concurrency=3, order="prefix"), base_urls=("http://h",), on_end=("a", "b"),
    ),
    "lease.json": LeaseRecord(
        run="t-1", token="abcdefghijkl", expires_at=99, state="released", clouds=("runpod", "lambda"), created_at=1.0,
        revoked_at=1.5, sealed=True, proof=PROOF,
    ),
    "intents.jsonl": Intent(
        time=1.5, kind="resolved", name="n", index=0, attempt=1, cloud="a", offer="o", price_usd_per_hour=2.5, id="i",
        outcome="deleted_extra", detail="why",
    ),
    "unconfirmed.jsonl": UnconfirmedMachine(time=1.0, cloud="a", id="i", name="n", price_usd_per_hour=2.5),
    "receipt.json": Receipt(
        run="t-1", job="t", usd=1.5, billed_usd=1.4, estimated_usd=(1.0, 2.0, 3.0), requests_completed=7,
        requests_failed=1, usage=USAGE, released=True,
        machines=(
            MachineReceipt(
                index=0, cloud="a", id="i", name="n", offer="o", seconds=9, boot_s=1, work_s=7, idle_s=1,
                usd_per_hour=2.5, usd=1.5, proven_gone=True,
            ),
        ),
    ),
    "lifecycle.json": RunProcesses(
        lifecycle=ProcessMark(pid=1, started_at=1.5), pulumi=ProcessMark(pid=2, started_at=2.5)
    ),
}  # fmt: skip
LINES: dict[str, msgspec.Struct] = {
    "events.jsonl": Event(
        time="t", source="cloud", event="machine_created", message="é", data={"index": 1, "usd": 2.5}
    ),
    "failures.jsonl": Failure(
        time="t", step="machine", index=0, attempt=1, kind="NoCapacity", exit_code=11, message="m"
    ),
    "attempts.json": Attempt(attempt=2, left_out=("a", "b")),
}


@pytest.mark.parametrize("record", [*FILES.values(), *LINES.values()], ids=[*FILES, *LINES])
def test_a_record_comes_back_as_it_was(record: msgspec.Struct) -> None:
    data = msgspec.json.encode(record)

    assert b"\n" not in data
    assert msgspec.json.decode(data, type=type(record)) == record


@pytest.mark.parametrize("record", FILES.values(), ids=FILES)
def test_a_whole_file_says_its_version(record: msgspec.Struct) -> None:
    assert json.loads(msgspec.json.encode(record))["version"] == 1


@pytest.mark.parametrize("record", [*FILES.values(), *LINES.values()], ids=[*FILES, *LINES])
def test_fields_that_a_newer_version_adds_are_no_error(record: msgspec.Struct) -> None:
    newer = {**json.loads(msgspec.json.encode(record)), "added_later": {"x": [1]}}

    assert msgspec.json.decode(json.dumps(newer), type=type(record)) == record


@pytest.mark.parametrize("record", [*FILES.values(), *LINES.values()], ids=[*FILES, *LINES])
def test_half_a_record_is_an_error_and_not_another_record(record: msgspec.Struct) -> None:
    data = msgspec.json.encode(record)

    for end in range(0, len(data), 7):
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(data[:end], type=type(record))


def test_final_states_are_states() -> None:
    assert set(get_args(State)) > FINAL_STATES


def test_times_are_rfc_3339_in_utc_with_milliseconds() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000Z"
    assert format_time(1_790_000_000.1239) == "2026-09-21T14:13:20.123Z"
