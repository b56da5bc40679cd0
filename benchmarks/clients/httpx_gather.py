"""The script that people write: httpx, a semaphore, asyncio.gather, one JSON line an answer. Run by benchmarks.contenders."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import httpx


async def send(url: str, source: Path, target: Path, lines: int, in_flight: int) -> None:
    semaphore = asyncio.Semaphore(in_flight)
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    with source.open() as file:
        requests = [json.loads(line) for line in itertools.islice(file, lines)]
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        with target.open("w") as output:

            async def work(request: dict[str, Any]) -> None:
                async with semaphore:
                    response = await client.post(url, json=request["body"])
                output.write(json.dumps({"custom_id": request["custom_id"], "body": response.json()}) + "\n")

            await asyncio.gather(*(work(request) for request in requests))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("lines", type=int)
    parser.add_argument("in_flight", type=int)
    options = parser.parse_args()
    asyncio.run(send(options.url, options.source, options.target, options.lines, options.in_flight))
