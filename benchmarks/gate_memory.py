"""Does memory grow with the batch? The whole way, from the check of the input to the files in place."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.gate import Finding
from benchmarks.workload import ENDPOINT, dispatcher_command, measure, serve_stub, write_input, write_manifest
from runtime.batch.batch_input import scan_input
from runtime.dispatcher.manifest import DispatchOptions

SMALL_LINES = 10_000
ALLOWED_MB = 50


def check_memory(folder: Path, lines: int) -> list[Finding]:
    """Peak memory and speed at `lines`, beside the peak at SMALL_LINES; CPU of the check alone."""
    folder.mkdir()
    source = folder / "input.jsonl"
    write_input(source, lines)
    began = time.process_time()
    scan_input(source, endpoint=ENDPOINT, model="tiny").raise_if_bad()
    check_s = time.process_time() - began
    with serve_stub(padding=100) as url:
        runs = []
        for limit in (SMALL_LINES, lines):
            options = DispatchOptions(max_concurrency=256, line_limit=limit)
            manifest = write_manifest(folder / f"run-{limit}", source, url, options=options)
            runs.append(measure(dispatcher_command(manifest), log=folder / "log"))
    small, large = runs
    with (folder / f"run-{lines}" / "output.jsonl").open("rb") as file:
        written = sum(1 for _ in file)
    growth = large.peak_mb - small.peak_mb
    rate = f"{lines / large.wall_s:,.0f} lines/s, {large.cpu_s / lines * 1e6:.1f} us CPU a line"
    return [
        Finding(gate=f"{lines:,} lines", figure=f"{written:,} results, {rate}", wanted="all", holds=written == lines),
        Finding(
            gate=f"peak memory at {lines:,} lines",
            figure=f"{large.peak_mb:.0f} MB, {growth:.0f} MB above {SMALL_LINES:,} lines",
            wanted=f"< {ALLOWED_MB} MB above",
            holds=growth < ALLOWED_MB,
        ),
        Finding(
            gate=f"check of {lines:,} lines of 1 kB",
            figure=f"{check_s:.1f} s CPU",
            wanted="<= 4 s a million",
            holds=check_s <= 4e-6 * lines,
        ),
    ]
