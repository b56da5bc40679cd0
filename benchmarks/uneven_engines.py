"""Many stub engines in one process, and how busy each was. A process of benchmarks.gate_machines.

Prints the base URLs, one a line, then an empty line; when the input is closed, what it sampled as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import uvloop

from tests.runtime.stub_engine import StubEngine

SAMPLE_S = 0.05


async def serve(slots: int, delays: list[float]) -> None:
    engines = [StubEngine(slots=slots, delay_s=delay, jitter_s=delay / 4, seed=n) for n, delay in enumerate(delays)]
    for engine in engines:
        engine.remembers = False
        print(await engine.start())
    print(flush=True)
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    samples = []
    while not closed.done():
        await asyncio.sleep(SAMPLE_S)
        answers = sum(engine.generated for engine in engines) / 5
        samples.append(
            {
                "time": time.monotonic(),
                "requests": sum(engine.requests for engine in engines),
                "answers": answers,
                "running": [engine.running for engine in engines],
            }
        )
    print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("slots", type=int)
    parser.add_argument("delays", type=float, nargs="+")
    options = parser.parse_args()
    uvloop.run(serve(options.slots, options.delays))
