"""A fast engine that answers at once, late, wrongly or not at all, as each request's body asks for. In a loop or as a process.

A body may hold {"faults": ["503", "reset"]}: what happens to its first try, its second one, and so on; then it is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
from collections import Counter, deque
from pathlib import Path
from typing import Any

NUMBER = b"1.10000000000000000000001"


class StubEngine:
    """slots: requests worked on at once, 0 for no limit (others wait, as in vLLM); queue_limit: more are turned away with 503."""

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        slots: int = 0,
        queue_limit: int = 0,
        has_metrics: bool = True,
        key: str = "",
        padding: int = 0,
        seed: int = 1,
    ) -> None:
        self.delay_s, self.jitter_s, self.slots, self.queue_limit = delay_s, jitter_s, slots, queue_limit
        self.has_metrics, self.key = has_metrics, key
        self.health = 200
        self.is_dead = False
        self.tries: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: dict[str, bytes] = {}
        self.remembers = True
        self.connections = self.requests = self.running = self.most_running = self.most_waiting = self.aborted = 0
        self.generated = self.deaths = 0
        self.waiting: deque[_Connection] = deque()
        self.open: set[_Connection] = set()
        self.padding = b"x" * padding
        self.draw = random.Random(seed)
        self.base_url = ""
        self._server: asyncio.Server | None = None
        self._place: tuple[str, Any] = ("", None)

    async def start(self, *, port: int = 0, path: Path | None = None) -> str:
        loop = asyncio.get_running_loop()
        if path is not None:
            self._server = await loop.create_unix_server(lambda: _Connection(self), path=str(path))
            self._place = ("unix", path)
        else:
            self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=4096)
            port = self._server.sockets[0].getsockname()[1]
            self._place = ("tcp", port)
            self.base_url = f"http://127.0.0.1:{port}"
        return self.base_url

    async def close(self) -> None:
        self.die()
        await asyncio.sleep(0)
        if self._server is not None:
            self._server.close()

    @property
    def port(self) -> int:
        return int(self._place[1])

    def die(self) -> None:
        """As a crash: every connection is reset, the next ones too. (Closing the listener would lose what it just accepted.)"""
        self.deaths += 1
        self.is_dead = True
        for connection in list(self.open):
            connection.reset()

    def revive(self) -> None:
        self.is_dead = False

    def die_for(self, seconds: float) -> None:
        self.die()
        asyncio.get_running_loop().call_later(seconds, self.revive)

    def metrics(self) -> bytes:
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f'vllm:num_requests_running{{engine="0",model_name="tiny"}} {self.running}',
            f'vllm:num_requests_waiting{{engine="0",model_name="tiny"}} {len(self.waiting)}',
            'vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25',
            'vllm:num_preemptions_total{engine="0",model_name="tiny"} 0',
            f'vllm:generation_tokens_total{{engine="0",model_name="tiny"}} {self.generated}',
            f"stub:requests_total {self.requests}",
        ]
        return "\n".join(lines).encode() + b"\n"

    def admit(self, connection: _Connection) -> None:
        """Work on it now, or when a slot is free, or never."""
        if self.slots and self.running >= self.slots:
            if self.queue_limit and len(self.waiting) >= self.queue_limit:
                connection.reply(503, b'{"error":{"type":"Service Unavailable","message":"full"}}')
                return
            self.waiting.append(connection)
            self.most_waiting = max(self.most_waiting, len(self.waiting))
            return
        self.work(connection)

    def work(self, connection: _Connection) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        connection.is_running = True
        delay_s = self.delay_s
        if self.jitter_s:
            delay_s += self.draw.uniform(-self.jitter_s, self.jitter_s)
        if delay_s > 0:
            connection.timer = asyncio.get_running_loop().call_later(delay_s, self.finish, connection)
        else:
            self.finish(connection)

    def finish(self, connection: _Connection) -> None:
        self.generated += 5
        if self.remembers:
            self.answered[connection.name] += 1
        self.end(connection)
        connection.answer()

    def end(self, connection: _Connection) -> None:
        """Its slot is free for the next one."""
        if connection.is_running:
            connection.is_running = False
            self.running -= 1
            while self.waiting and (not self.slots or self.running < self.slots):
                self.work(self.waiting.popleft())


class _Connection(asyncio.Protocol):
    def __init__(self, engine: StubEngine) -> None:
        self.engine = engine
        self.is_running = False
        self.timer: asyncio.TimerHandle | None = None
        self.name = ""
        self._buffer = b""
        self._body = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.engine.connections += 1
        self.engine.open.add(self)
        if self.engine.is_dead:
            self.reset()

    def connection_lost(self, _error: Exception | None) -> None:
        self.engine.open.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        if self.is_running:
            self.engine.aborted += 1
            self.engine.end(self)
        with contextlib.suppress(ValueError):
            self.engine.waiting.remove(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _header(head, b"content-length:")
            size = int(length) if length else 0
            if len(self._buffer) < end + 4 + size:
                return
            body = self._buffer[end + 4 : end + 4 + size]
            self._buffer = self._buffer[end + 4 + size :]
            self._handle(head, body)

    def _handle(self, head: bytes, body: bytes) -> None:
        engine = self.engine
        if engine.is_dead:
            return
        if head.startswith(b"GET /health"):
            self.reply(engine.health, b"{}")
        elif head.startswith(b"GET /observed"):  # for who measures, even where the engine has no metrics
            self.reply(200, engine.metrics())
        elif head.startswith(b"GET /metrics"):
            self.reply(200 if engine.has_metrics else 404, engine.metrics() if engine.has_metrics else b"no")
        elif engine.key and _header(head, b"authorization:") != b"Bearer " + engine.key.encode():
            self.reply(401, b'{"error":{"message":"wrong key"}}')
        else:
            self._receive(head, body)

    def _receive(self, head: bytes, body: bytes) -> None:
        engine = self.engine
        engine.requests += 1
        self._body = body
        request_id = _header(head, b"x-request-id:").decode()
        self.name, _, number = request_id.rpartition("-")
        if engine.remembers:
            engine.tries[self.name] += 1
            engine.bodies[self.name] = body
        fault = ""
        if b'"faults"' in body:
            faults = json.loads(body)["faults"]
            fault = faults[int(number) - 1] if int(number) <= len(faults) else ""
        if fault:
            self._misbehave(*fault.partition(":")[::2])
        else:
            engine.admit(self)

    def _misbehave(self, fault: str, value: str) -> None:
        loop = asyncio.get_running_loop()
        if fault.isdigit():
            extra = f"Retry-After: {value}\r\n".encode() if value else b""
            self.reply(
                int(fault), b'{"error":{"message":"asked for","type":"fault","code":%s}}' % fault.encode(), extra
            )
        elif fault == "text":
            self.reply(int(value), b"<html>no JSON</html>")
        elif fault == "reset":
            self.reset()
        elif fault == "close":
            self._transport.close()
        elif fault == "truncate":
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + self._make_body()[:40])
            self._transport.close()
        elif fault == "garbage":
            self.reply(200, b'{"id":"x","cho')
        elif fault == "nonsense":
            self._transport.write(b"SSH-2.0-nonsense\r\n\r\n")
            self._transport.close()
        elif fault == "slow":
            self.timer = loop.call_later(float(value), self.answer)
        elif fault == "pretty":
            self.reply(200, json.dumps(json.loads(self._make_body()), indent=2).encode())
        elif fault == "early":
            self._transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
            self.answer()
        elif fault == "closed":
            self._transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + self._make_body())
            self._transport.close()
        elif fault == "drip":
            self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._drip(self._make_body())
        elif fault == "die":
            self.engine.die_for(float(value))
        elif fault != "stall":
            raise ValueError(fault)

    def _drip(self, rest: bytes) -> None:
        part, rest = rest[:40], rest[40:]
        self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        if part:
            self.timer = asyncio.get_running_loop().call_later(0.005, self._drip, rest)

    def _make_body(self) -> bytes:
        return (
            b'{"id":"%b","number":%b,"pad":"%b","usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}'
            % (
                self.name.encode(),
                NUMBER,
                self.engine.padding,
            )
        )

    def answer(self) -> None:
        self.reply(200, self._make_body())

    def reply(self, status: int, body: bytes, extra: bytes = b"") -> None:
        if not self._transport.is_closing():
            self._transport.write(
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
                % (status, extra, len(body), body)
            )

    def reset(self) -> None:
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        if line[: len(name)].lower() == name:
            return line[len(name) :].strip()
    return b""


async def _serve(options: argparse.Namespace) -> None:
    engine = StubEngine(
        delay_s=options.delay,
        jitter_s=options.jitter,
        slots=options.slots,
        padding=options.padding,
        has_metrics=not options.no_metrics,
    )
    engine.remembers = False
    print(await engine.start(port=options.port), flush=True)
    if options.later_slots:
        asyncio.get_running_loop().call_later(options.later, setattr, engine, "slots", options.later_slots)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stub engine; prints its base URL when it listens.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=0)
    parser.add_argument("--padding", type=int, default=0)
    parser.add_argument("--no-metrics", action="store_true")
    parser.add_argument("--later-slots", type=int, default=0, help="slots from --later seconds on")
    parser.add_argument("--later", type=float, default=0.0)
    options = parser.parse_args()
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.run(_serve(options))


if __name__ == "__main__":
    main()
