"""From S3 to S3: how much memory a large input takes, and whether every request is there once when computers are lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gate import Finding
from benchmarks.gate_knees import fetch_observed
from benchmarks.workload import end, measure, serve_stub, start, write_input
from runtime.objects.object_store import ObjectStore
from tests.runtime.object_service import ObjectService, serve_objects

ALLOWED_MB = 150
LINE_BYTES = 1010
KILLED_MB = 50
LONGEST_LIFE_S = 12.0
END_TIMEOUT_S = 600.0


def check_object_memory(folder: Path, megabytes: int) -> list[Finding]:
    """The whole way: download, check, dispatch, seal, upload; in one process, which does more than the dispatcher."""
    lines = megabytes * 1_000_000 // LINE_BYTES
    with _serve(folder, lines) as (service, store), serve_stub(padding=100) as engine:
        size = store.require("input.jsonl").size
        command = _make_command(store, folder / "computer", "memory", engine)
        measured = measure(command, log=folder / "log")
        ids = _read_ids(store, folder)
        sent = len(service.proxy.asked)
    return [
        Finding(
            gate=f"{size / 1e6:,.0f} MB from S3 to S3",
            figure=f"{len(ids):,} results in {measured.wall_s:.0f} s, {sent:,} requests to S3",
            wanted=f"{lines:,}, each once",
            holds=len(ids) == len(set(ids)) == lines,
        ),
        Finding(
            gate="its peak memory",
            figure=f"{measured.peak_mb:.0f} MB",
            wanted=f"< {ALLOWED_MB} MB",
            holds=measured.peak_mb < ALLOWED_MB,
        ),
    ]


def check_lost_computers(folder: Path, kills: int, megabytes: int = KILLED_MB) -> list[Finding]:
    """kill -9 at random moments, take-overs included, and each time another computer that has nothing but the prefix."""
    draw = random.Random(8)
    lines = megabytes * 1_000_000 // LINE_BYTES
    met = 0
    with _serve(folder, lines) as (_, store), serve_stub(delay=0.05, jitter=0.02, padding=100) as engine:
        for number in range(kills):
            computer = folder / f"computer-{number}"
            process = start(_make_command(store, computer, f"run-{number}", engine), log=folder / "log")
            time.sleep(draw.uniform(1.0, LONGEST_LIFE_S))
            met += process.poll() is None
            end(process)
            shutil.rmtree(computer, ignore_errors=True)
        process = start(_make_command(store, folder / "last", "last", engine), log=folder / "log")
        code = process.wait(END_TIMEOUT_S)
        redone = fetch_observed(engine)["stub:requests_total"] - lines
        ids = _read_ids(store, folder)
        owner = json.loads((store.read("out/_leasehold/owner.json") or (b"{}", ""))[0])
    wanted = {f"request-{number:09d}" for number in range(lines)}
    return [
        Finding(
            gate=f"{kills} computers lost, {megabytes} MB",
            figure=f"{len(set(ids)):,} ids in {len(ids):,} lines, {met} kills met a live run, epoch {owner.get('epoch')}, "
            f"{redone / kills:,.0f} requests done twice a kill",
            wanted=f"{lines:,} ids, each once",
            holds=code == 0 and met == kills and len(ids) == lines and set(ids) == wanted,
        )
    ]


@contextlib.contextmanager
def _serve(folder: Path, lines: int) -> Iterator[tuple[ObjectService, ObjectStore]]:
    folder.mkdir()
    write_input(folder / "source.jsonl", lines)
    with serve_objects() as service:
        os.environ.update(service.environment)
        store = service.open(f"s3://{service.make_bucket()}")
        store.upload(folder / "source.jsonl", "input.jsonl")
        (folder / "source.jsonl").unlink()
        yield service, store


def _make_command(store: ObjectStore, computer: Path, run: str, engine: str) -> list[str]:
    address = f"s3://{store.root.bucket}/out"
    return [sys.executable, "-m", "benchmarks.object_computer", address, str(computer), run, engine]


def _read_ids(store: ObjectStore, folder: Path) -> list[str]:
    path = folder / "downloaded.jsonl"
    store.download(store.require("out/output.jsonl"), path)
    with path.open("rb") as file:
        return [json.loads(line)["custom_id"] for line in file]
