"""Does the window find an engine's knee by itself, and follow it when it moves? In real time, against stubs in processes.

Every dispatcher and its stub run at the same time; what is measured is told by the stubs, not by the dispatcher.
"""

from __future__ import annotations

import contextlib
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.gate import Finding
from benchmarks.workload import ENDPOINT, ROOT, dispatcher_command, end, serve_stub, start, write_input, write_manifest

SETTLE_S, MEASURE_S, SAMPLE_S = 30.0, 15.0, 0.2
FIXED_SETTLE_S = 4.0
TOKENS_PER_ANSWER = 5
SWEEP = (1.0, 1.1, 1.5, 2.0)


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """A stub with `knee` slots; from SETTLE_S on it has `later`, if that is not 0."""

    knee: int
    delay: float
    later: int = 0
    no_metrics: bool = False

    @property
    def name(self) -> str:
        moved = f" -> {self.later}" if self.later else ""
        return f"knee {self.knee}{moved}{', no metrics' if self.no_metrics else ''}"


ENGINES = (
    Engine(knee=16, delay=0.25),
    Engine(knee=128, delay=0.5),
    Engine(knee=512, delay=1.0),
    Engine(knee=32, later=128, delay=0.5),
    Engine(knee=128, later=32, delay=0.5),
    Engine(knee=16, delay=0.25, no_metrics=True),
    Engine(knee=128, delay=0.5, no_metrics=True),
)


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    answers_per_s: float
    queue_share: float


def check_knees(folder: Path) -> list[Finding]:
    """At most 0.03 behind the best fixed window, 30 s after the start or the move, the queue under a tenth of what runs."""
    source = folder / "input.jsonl"
    write_input(source, 120_000, padding=100)
    ours = _observe_dispatchers(source, folder)
    best = _sweep()
    findings = []
    for engine, found in zip(ENGINES, ours, strict=True):
        share = found.answers_per_s / best[(engine.later or engine.knee, engine.delay)]
        figure = f"{share:.3f} of the best fixed window, queue {found.queue_share:.3f} of what runs"
        wanted = ">= 0.97" if engine.no_metrics else ">= 0.97, queue < 0.1"
        holds = share >= 0.97 and (engine.no_metrics or found.queue_share < 0.1)
        findings.append(Finding(gate=engine.name, figure=figure, wanted=wanted, holds=holds))
    return findings


def fetch_observed(url: str) -> dict[str, float]:
    """What a stub tells of itself now."""
    with urllib.request.urlopen(url + "/observed", timeout=10) as response:
        lines = response.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    found = {name.partition("{")[0]: float(value) for name, value in pairs}
    found["answers"] = found["vllm:generation_tokens_total"] / TOKENS_PER_ANSWER
    found["time"] = time.monotonic()
    return found


def _observe_dispatchers(source: Path, folder: Path) -> list[Observation]:
    with contextlib.ExitStack() as stack:
        urls = []
        for number, engine in enumerate(ENGINES):
            options: dict[str, Any] = {"later_slots": engine.later, "later": SETTLE_S} if engine.later else {}
            if engine.no_metrics:
                options["no_metrics"] = True
            url = stack.enter_context(_serve(engine.knee, engine.delay, **options))
            manifest = write_manifest(folder / f"knee-{number}", source, url)
            stack.callback(end, start(dispatcher_command(manifest), log=folder / "knees.log"))
            urls.append(url)
        time.sleep(SETTLE_S)
        still = [number for number, engine in enumerate(ENGINES) if not engine.later]
        early = dict(zip(still, _watch([urls[number] for number in still]), strict=True))
        time.sleep(SETTLE_S - MEASURE_S)
        moved = [number for number, engine in enumerate(ENGINES) if engine.later]
        late = dict(zip(moved, _watch([urls[number] for number in moved]), strict=True))
        found = early | late
        return [found[number] for number in range(len(ENGINES))]


def _sweep() -> dict[tuple[int, float], float]:
    """The best answers/s of fixed windows, by knee and delay."""
    kinds = sorted({(engine.later or engine.knee, engine.delay) for engine in ENGINES})
    best = dict.fromkeys(kinds, 0.0)
    script = str(ROOT / "benchmarks" / "clients" / "bare_aiohttp.py")
    for factor in SWEEP:
        with contextlib.ExitStack() as stack:
            urls = []
            for knee, delay in kinds:
                urls.append(stack.enter_context(_serve(knee, delay)))
                command = [sys.executable, script, urls[-1] + ENDPOINT, "1000000", str(int(knee * factor))]
                stack.callback(end, start(command))
            time.sleep(FIXED_SETTLE_S)
            for kind, found in zip(kinds, _watch(urls), strict=True):
                best[kind] = max(best[kind], found.answers_per_s)
    return best


def _serve(knee: int, delay: float, **options: Any) -> contextlib.AbstractContextManager[str]:
    return serve_stub(slots=knee, delay=delay, jitter=delay / 4, **options)


def _watch(urls: list[str]) -> list[Observation]:
    """Ask all of them again and again for MEASURE_S."""
    began = time.monotonic()
    first = [fetch_observed(url) for url in urls]
    shares: list[list[float]] = [[] for _ in urls]
    last = first
    while time.monotonic() < began + MEASURE_S:
        time.sleep(SAMPLE_S)
        last = [fetch_observed(url) for url in urls]
        for samples, seen in zip(shares, last, strict=True):
            samples.append(seen["vllm:num_requests_waiting"] / max(1.0, seen["vllm:num_requests_running"]))
    return [
        Observation(
            answers_per_s=(after["answers"] - before["answers"]) / (after["time"] - before["time"]),
            queue_share=sum(samples) / len(samples),
        )
        for before, after, samples in zip(first, last, shares, strict=True)
    ]
