"""Our own HTTP: what is taken for an answer, when a connection is used again, and that nothing of one answer gets into another."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import runtime.engines.fast_http
from runtime.engines.exchange import TransportFailure
from runtime.engines.fast_http import FastTransport
from runtime.engines.http_connection import LARGEST_HEAD_BYTES

Respond = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[None] | None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Reads requests with a content length; `respond` gets the number of the request, itself, and where to write."""

    def __init__(self, respond: Respond) -> None:
        self.connections = self.requests = self.hang_ups = 0
        self._respond = respond

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                self.requests += 1
                waited = self._respond(self.requests, head + body, writer)
                if waited is not None:
                    await waited
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hang_ups += 1
        finally:
            writer.close()


@asynccontextmanager
async def served(respond: Respond, **options: str) -> AsyncIterator[tuple[FastTransport, Server]]:
    server = Server(respond)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    host = options.get("host", "127.0.0.1")
    transport = FastTransport(f"http://{host}:{port}", endpoint="/v1/chat/completions")
    try:
        async with asyncio.timeout(10):
            yield transport, server
    finally:
        await transport.close()
        listener.close()


def always(reply: bytes, *, closing: bool = False) -> Respond:
    def respond(_number: int, _request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        if closing:
            writer.close()

    return respond


async def post(transport: FastTransport) -> bytes:
    return (await transport.post(b'{"a":1}', request_id="r-1")).body


WHOLE: list[tuple[str, bytes, bool]] = [
    ("chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n", False),
    ("hints first", b"HTTP/1.1 103 Early Hints\r\nX-Request-Id: no\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, False),
    ("up to the end", b"HTTP/1.1 200 OK\r\n\r\n{}", True),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n{}", True),
    ("connection: close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", True),
    ("gzip", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
     % (len(gzip.compress(b"{}", mtime=0)), gzip.compress(b"{}", mtime=0)), False),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "closing"), [case[1:] for case in WHOLE], ids=[case[0] for case in WHOLE])
async def test_an_answer_is_whole_by(reply: bytes, closing: bool) -> None:
    async with served(always(reply, closing=closing)) as (transport, server):
        for _ in range(3):
            assert await post(transport) == b"{}"

        assert server.connections == (3 if closing else 1)


BROKEN: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("a cut head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    ("a cut body", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}"),
    ("cut chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    ("only hints", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ("another protocol", b"SSH-2.0-x\r\n\r\n"),
    ("a switch of protocols", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ("a head without an end", b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * LARGEST_HEAD_BYTES)),
    ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    ("cut gzip", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n" + gzip.compress(b"{}")[:9]),
    ("an unknown encoding", b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}"),
]


@pytest.mark.parametrize("reply", [case[1] for case in BROKEN], ids=[case[0] for case in BROKEN])
async def test_no_answer_is(reply: bytes) -> None:
    async with served(always(reply, closing=True)) as (transport, server):
        with pytest.raises(TransportFailure) as caught:
            await post(transport)

        assert caught.value.kind == "broken"
        assert server.requests == 1  # never sent again from here


@pytest.mark.parametrize("split", [1, 7, 40])
async def test_an_answer_may_come_in_any_pieces(split: int) -> None:
    reply = (
        b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    )

    async def respond(_number: int, _request: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(reply), split):
            writer.write(reply[start : start + split])
            await writer.drain()
            await asyncio.sleep(0)

    async with served(respond) as (transport, _):
        answer = await transport.post(b"{}", request_id="ours")

    assert (answer.body, answer.request_id) == (b"[1,2]", "theirs")


async def test_a_second_answer_to_one_request_is_never_taken_for_the_next() -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"

    def respond(number: int, _request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + extra if number == 1 else OK)

    async with served(respond) as (transport, server):
        assert await post(transport) == b"{}"
        assert await post(transport) == b"{}"

        assert server.connections == 2


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    writers: list[asyncio.StreamWriter] = []

    def respond(_number: int, _request: bytes, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(OK)

    async with served(respond) as (transport, server):
        await post(transport)
        writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
        while server.hang_ups == 0:
            await asyncio.sleep(0.005)

        assert await post(transport) == b"{}"
        assert server.connections == 2


async def test_an_answer_before_the_request_is_all_sent_ends_the_connection() -> None:
    async def respond_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        connections.append(writer)

    connections: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(respond_early, "127.0.0.1", 0, limit=1024)
    transport = FastTransport(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", endpoint="/x")

    async with asyncio.timeout(10):
        answers = [await transport.post(b"x" * 30_000_000, request_id="r") for _ in range(2)]

    assert [answer.status for answer in answers] == [413, 413]
    assert len(connections) == 2
    await transport.close()
    for writer in connections:
        writer.close()
    listener.close()


async def test_cancelling_hangs_up_so_that_the_engine_can_drop_the_request() -> None:
    async with served(lambda *_: None) as (transport, server):
        waiting = asyncio.create_task(post(transport))
        while server.requests == 0:
            await asyncio.sleep(0.005)
        waiting.cancel()
        while server.hang_ups == 0:
            await asyncio.sleep(0.005)

        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_an_idle_connection_is_closed_before_the_server_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.engines.fast_http, "KEEP_ALIVE_S", 0.1)
    async with served(always(OK)) as (transport, server):
        await post(transport)
        await post(transport)
        assert server.connections == 1
        while server.hang_ups == 0:
            await asyncio.sleep(0.005)

        await post(transport)
        assert server.connections == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    writers: list[asyncio.StreamWriter] = []

    def respond(_number: int, _request: bytes, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(OK)

    async with served(respond) as (transport, server):
        await post(transport)
        writers[0].close()
        await asyncio.sleep(0.05)

        assert await post(transport) == b"{}"
        assert server.requests == 2


async def test_a_health_check_over_a_connection_that_just_died_asks_again() -> None:
    def respond(number: int, _request: bytes, writer: asyncio.StreamWriter) -> None:
        if number == 2:
            writer.close()
        else:
            writer.write(OK)

    async with served(respond) as (transport, server):
        await post(transport)

        assert await transport.check_health(timeout_s=2.0) == "ok"
        assert server.requests == 3


async def test_many_at_once_each_get_their_own_answer() -> None:
    async def respond(number: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.001 * (number % 7))
        body = request.partition(b"\r\n\r\n")[2]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with served(respond) as (transport, server):
        bodies = [b"[%d]" % number for number in range(400)]
        limit = asyncio.Semaphore(20)

        async def send(body: bytes) -> bytes:
            async with limit:
                return (await transport.post(body, request_id="r")).body

        assert await asyncio.gather(*(send(body) for body in bodies)) == bodies
        assert server.connections <= 20


async def test_a_name_is_looked_up_and_told_to_the_server() -> None:
    seen: list[bytes] = []

    def respond(_number: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(OK)

    async with served(respond, host="localhost") as (transport, _):
        assert await post(transport) == b"{}"

    assert seen[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:")


async def test_a_name_that_there_is_not_says_nothing_about_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_place: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    transport = FastTransport("http://gone.invalid", endpoint="/x")

    assert await transport.check_health(timeout_s=5.0) == "unreachable"
    await transport.close()


async def test_what_cannot_be_connected_was_not_sent(tmp_path: Path, unused_tcp_port: int) -> None:
    for transport in (
        FastTransport(f"http://127.0.0.1:{unused_tcp_port}", endpoint="/x"),
        FastTransport("http://engine", endpoint="/x", socket_path=tmp_path / "none.sock"),
    ):
        with pytest.raises(TransportFailure) as caught:
            await transport.post(b"{}", request_id="r")

        assert caught.value.kind == "unreachable"
        await transport.close()
