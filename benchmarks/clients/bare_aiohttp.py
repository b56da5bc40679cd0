"""What one would write by hand at its fastest: aiohttp on uvloop, the same body again and again, answers thrown away.

Nothing is read, checked, retried or written. The dispatcher is measured against it. Run by benchmarks.contenders.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource

import aiohttp
import uvloop


async def send(url: str, lines: int, in_flight: int) -> None:
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x" * 830}]}).encode()
    numbers = iter(range(lines))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:

        async def work() -> None:
            for _ in numbers:
                async with session.post(url, data=body) as response:
                    await response.read()

        await asyncio.gather(*(work() for _ in range(in_flight)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("lines", type=int)
    parser.add_argument("in_flight", type=int)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    uvloop.run(send(options.url, options.lines, options.in_flight))
