"""The script that people write: the openai client, a semaphore, asyncio.gather. Run by benchmarks.contenders, in a venv."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import openai


async def send(base_url: str, source: Path, target: Path, lines: int, in_flight: int) -> None:
    semaphore = asyncio.Semaphore(in_flight)
    with source.open() as file:
        requests = [json.loads(line) for line in itertools.islice(file, lines)]
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:
        with target.open("w") as output:

            async def work(request: dict[str, Any]) -> None:
                async with semaphore:
                    answer = await client.chat.completions.create(**request["body"])
                output.write(json.dumps({"custom_id": request["custom_id"], "body": answer.model_dump()}) + "\n")

            await asyncio.gather(*(work(request) for request in requests))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("lines", type=int)
    parser.add_argument("in_flight", type=int)
    options = parser.parse_args()
    asyncio.run(send(options.base_url, options.source, options.target, options.lines, options.in_flight))
