"""The dispatcher against a bare aiohttp + uvloop loop that does nothing else, and its memory. Run by hand, one core each:

python tests/bench/bench_dispatcher.py --lines 20000 --rounds 3 [--delay 0.5 --jitter 0.25 --in-flight 2048]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

from runtime.manifest import DispatchOptions, Manifest

ROOT = Path(__file__).parents[2]
ENDPOINT = "/v1/chat/completions"


def main() -> None:
    options = parse_arguments()
    if options.role == "bare":
        uvloop.run(run_bare(options.url, options.lines, options.in_flight))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_input(folder / "input.jsonl", options.lines)
        for url in start_stub(options):
            figures: dict[str, list[tuple[float, float, float]]] = {"bare": [], "dispatcher": []}
            for round_number in range(options.rounds):
                figures["bare"].append(measure(bare_command(options, url)))
                figures["dispatcher"].append(measure(dispatcher_command(options, url, folder, round_number)))
            report(figures, options.lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--role", choices=["all", "bare"], default="all")
    parser.add_argument("--url", default="")
    return parser.parse_args()


def write_input(path: Path, lines: int) -> None:
    """Lines of about 1 kB."""
    with path.open("w") as file:
        for number in range(lines):
            message = {"role": "user", "content": f"{number} " + "x" * 830}
            body = {"model": "tiny", "messages": [message], "max_tokens": 64}
            line = {"custom_id": f"request-{number:09d}", "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line) + "\n")


def start_stub(options: argparse.Namespace) -> Iterator[str]:
    command = [sys.executable, str(ROOT / "tests/runtime/stub_engine.py"), "--padding", "900"]
    command += ["--delay", str(options.delay), "--jitter", str(options.jitter)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin_to(0)) as stub:
        assert stub.stdout is not None
        try:
            yield stub.stdout.readline().strip()
        finally:
            stub.kill()


def pin_to(core: int) -> Callable[[], None]:
    def pin() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    return pin


def bare_command(options: argparse.Namespace, url: str) -> list[str]:
    arguments = ["--role", "bare", "--url", url, "--lines", str(options.lines), "--in-flight", str(options.in_flight)]
    return [sys.executable, __file__, *arguments]


def dispatcher_command(options: argparse.Namespace, url: str, folder: Path, round_number: int) -> list[str]:
    output = folder / f"run-{round_number}"
    output.mkdir()
    manifest = Manifest(
        run=f"bench-{round_number}",
        input=str(folder / "input.jsonl"),
        output_dir=str(output),
        endpoint=ENDPOINT,
        model="tiny",
        base_urls=(url,),
        options=DispatchOptions(max_concurrency=options.in_flight),
    )
    (output / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return [sys.executable, "-m", "runtime.dispatcher", str(output / "manifest.json")]


def measure(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MB of one process, start to end."""
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, preexec_fn=pin_to(1))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def report(figures: dict[str, list[tuple[float, float, float]]], lines: int) -> None:
    rates: dict[str, Any] = {}
    for name, rounds in figures.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*rounds, strict=True))
        rates[name] = lines / wall
        print(f"{name:11} {lines / wall:8.0f} lines/s  {cpu / lines * 1e6:6.1f} us CPU a line  {peak:6.1f} MB peak")
    print(f"dispatcher / bare = {rates['dispatcher'] / rates['bare']:.2f} (medians of {len(figures['bare'])})")


async def run_bare(url: str, lines: int, in_flight: int) -> None:
    """What one would write by hand, at its fastest: the same body again and again, the answer thrown away."""
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x" * 830}]}).encode()
    numbers = iter(range(lines))
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:

        async def work() -> None:
            for _ in numbers:
                async with session.post(url + ENDPOINT, data=body) as response:
                    await response.read()

        await asyncio.gather(*(work() for _ in range(in_flight)))


if __name__ == "__main__":
    main()
