"""kill -9 again and again, each time with the results' tail torn: is every request there once, how much was done twice?"""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

from benchmarks.gate import Finding
from benchmarks.gate_knees import fetch_observed
from benchmarks.workload import dispatcher_command, end, serve_stub, start, write_input, write_manifest
from runtime.dispatcher.manifest import DispatchOptions

LINES, IN_FLIGHT, DELAY_S = 20_000, 32, 0.04
RATE = IN_FLIGHT / DELAY_S
LONGEST_LIFE_S = 1.0  # after it has begun to send
START_TIMEOUT_S = 60.0
TAILS = [b"", b'{"id":"batch_req_bench000', b"\0" * 4096, b'{"id":"x"}\n\0\0\0', b"garbage\n"]


def check_kills(folder: Path, kills: int) -> list[Finding]:
    """At random moments of its life, start included."""
    draw = random.Random(5)
    source, run = folder / "input.jsonl", folder / "run"
    folder.mkdir()
    write_input(source, LINES, padding=100)
    done = 0
    with serve_stub(delay=DELAY_S, jitter=DELAY_S / 2) as url:
        manifest = write_manifest(run, source, url, options=DispatchOptions(max_concurrency=IN_FLIGHT))
        for _ in range(kills):
            process = start(dispatcher_command(manifest), log=folder / "log")
            _wait_for_work(url, process)
            time.sleep(draw.uniform(0, LONGEST_LIFE_S))
            done += process.poll() is None
            end(process)
            _tear(run, draw)
        process = start(dispatcher_command(manifest), log=folder / "log")
        code = process.wait(LINES / RATE + START_TIMEOUT_S)
        redone = fetch_observed(url)["stub:requests_total"] - LINES
    ids = [json.loads(line)["custom_id"] for line in (run / "output.jsonl").read_bytes().splitlines()]
    is_whole = code == 0 and done == kills and sorted(ids) == [f"request-{number:09d}" for number in range(LINES)]
    allowed = IN_FLIGHT + RATE
    return [
        Finding(
            gate=f"kill -9, {kills} times",
            figure=f"{len(set(ids))} ids in {len(ids)} lines, {done} kills met a live dispatcher",
            wanted=f"{LINES} ids, each once",
            holds=is_whole,
        ),
        Finding(
            gate="done twice, a kill",
            figure=f"{redone / kills:.1f} requests",
            wanted=f"<= {allowed:.0f} (in flight and one second's worth)",
            holds=redone / kills <= allowed,
        ),
    ]


def _wait_for_work(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until this dispatcher has sent something."""
    before = fetch_observed(url)["stub:requests_total"]
    deadline = time.monotonic() + START_TIMEOUT_S
    while fetch_observed(url)["stub:requests_total"] == before and process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the dispatcher sends nothing")
        time.sleep(0.01)


def _tear(run: Path, draw: random.Random) -> None:
    for name in ("output.jsonl.part", "error.jsonl.part"):
        if (run / name).exists():
            with (run / name).open("ab") as file:
                file.write(draw.choice(TAILS))
