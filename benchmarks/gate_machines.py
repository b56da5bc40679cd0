"""Many machines of uneven speed: do the fast ones ever wait, does the end come when it should?"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.gate import Finding
from benchmarks.workload import ROOT, STUB_CORE, dispatcher_command, measure, pin_to, write_input, write_manifest

SLOTS, SLOWEST_S, LINES = 16, 1.6, 30_000
EVEN, EVEN_SLOTS, EVEN_S, EVEN_LINES = 64, 4, 0.25, 20_000
WARM_UP_S = 1.0


class Sample(msgspec.Struct, frozen=True):
    """What all engines together had had by then, and what each ran then."""

    time: float
    requests: int
    answers: float
    running: list[int]


def check_uneven(folder: Path) -> list[Finding]:
    """16 machines, the fastest 16 times as fast as the slowest."""
    delays = [SLOWEST_S / speed for speed in range(1, 17)]
    samples = _run(folder / "uneven", SLOTS, delays, LINES)
    steady = [sample for sample in samples if sample.time > samples[0].time + WARM_UP_S and sample.requests < LINES]
    fast = [sum(sample.running[8:]) / (8 * SLOTS) for sample in steady]
    idle = 1 - sum(fast) / len(fast)
    ratio = _took_s(samples) / (LINES / sum(SLOTS / delay for delay in delays))
    return [
        Finding(
            gate="16 machines, idle slots of the fast half", figure=f"{idle:.2%}", wanted="< 2 %", holds=idle < 0.02
        ),
        Finding(gate="16 machines, time to the end", figure=f"{ratio:.3f} of ideal", wanted="< 1.2", holds=ratio < 1.2),
    ]


def check_many(folder: Path) -> list[Finding]:
    """64 machines of one speed."""
    samples = _run(folder / "many", EVEN_SLOTS, [EVEN_S] * EVEN, EVEN_LINES)
    ratio = _took_s(samples) / (EVEN_LINES / (EVEN * EVEN_SLOTS / EVEN_S))
    return [
        Finding(gate="64 machines, time to the end", figure=f"{ratio:.3f} of ideal", wanted="< 1.2", holds=ratio < 1.2)
    ]


def _run(folder: Path, slots: int, delays: list[float], lines: int) -> list[Sample]:
    """Samples from the first request to the last answer."""
    folder.mkdir()
    write_input(folder / "input.jsonl", lines, padding=100)
    with _serve(slots, delays) as (urls, engines):
        measure(dispatcher_command(write_manifest(folder / "run", folder / "input.jsonl", *urls)), log=folder / "log")
        output, _ = engines.communicate("")
    samples = msgspec.json.decode(output, type=list[Sample])
    end = samples[-1].answers
    return [sample for sample in samples if sample.requests and sample.answers < end]


def _took_s(samples: list[Sample]) -> float:
    return samples[-1].time - samples[0].time


@contextlib.contextmanager
def _serve(slots: int, delays: list[float]) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "benchmarks.uneven_engines", str(slots), *(str(delay) for delay in delays)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, preexec_fn=pin_to(STUB_CORE), env=dict(os.environ), **pipes) as engines:
        lines = engines.stdout
        assert lines is not None
        try:
            yield list(iter(lambda: lines.readline().strip(), "")), engines
        finally:
            engines.kill()
