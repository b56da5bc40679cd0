from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.transport import Transport, TransportFailure

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(respond: Respond) -> AsyncIterator[Transport]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await respond(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = Transport(f"http://127.0.0.1:{port}/v1/", endpoint="/v1/embeddings", key="k")
    try:
        yield transport
    finally:
        await transport.close()
        server.close()


def answering(data: bytes, seen: list[bytes] | None = None) -> Respond:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(data)
        await writer.drain()

    return respond


async def test_a_request_has_what_an_engine_needs_and_an_answer_what_we_need() -> None:
    seen: list[bytes] = []
    reply = b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nX-Request-Id: \xc3\xa9\xff\r\nContent-Length: 2\r\n\r\n{}"
    async with served(answering(reply, seen)) as transport:
        answer = await transport.post(b"{}", request_id="run-1")

    head = seen[0].lower()
    assert head.startswith(b"post /v1/embeddings http/1.1\r\n")
    for header in (b"authorization: bearer k", b"x-request-id: run-1", b"content-type: application/json"):
        assert header in head
    assert b"accept-encoding: identity" in head
    assert (answer.status, answer.body, answer.retry_after_s) == (429, b"{}", 7.0)
    assert answer.request_id.isascii()


REPLIES = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=80).map(lambda data: b"HTTP/1.1 200 OK\r\n" + data),
    st.binary(max_size=80).map(lambda data: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data),
    st.binary(max_size=80).map(
        lambda data: b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n" + data
    ),
    st.integers(-5, 400).map(lambda size: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % size),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(REPLIES)
def test_whatever_comes_back_is_an_answer_or_a_failure(reply: bytes) -> None:
    async def send() -> None:
        async with served(answering(reply)) as transport, asyncio.timeout(5):
            try:
                answer = await transport.post(b"{}", request_id="r")
            except TransportFailure as failure:
                assert failure.kind in ("broken", "unreachable")
                assert failure.message
            else:
                assert 100 <= answer.status <= 999

    asyncio.run(send())


async def test_health_tells_sick_from_gone_from_unreachable_from_silent(unused_tcp_port: int) -> None:
    async def check(transport: Transport) -> str:
        try:
            return await transport.check_health(timeout_s=0.2)
        finally:
            await transport.close()

    async def nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    async with served(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as transport:
        assert await check(transport) == "ok"
    async with served(answering(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")) as transport:
        assert await check(transport) == "ok"
    async with served(answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")) as transport:
        assert await check(transport) == "sick"
    async with served(answering(b"")) as transport:
        assert await check(transport) == "gone"
    async with served(nothing) as transport:
        assert await check(transport) == "silent"
    assert await check(Transport(f"http://127.0.0.1:{unused_tcp_port}", endpoint="/x")) == "gone"
    assert await check(Transport("http://engine", endpoint="/x", socket_path=Path("/nowhere/0.sock"))) == "gone"


async def test_a_closed_transport_fails_as_any_other() -> None:
    transport = Transport("http://127.0.0.1:1", endpoint="/x")
    await transport.close()

    with pytest.raises(TransportFailure):
        await transport.post(b"{}", request_id="r")
    assert await transport.check_health(timeout_s=1.0) == "gone"
    assert await transport.fetch_metrics(timeout_s=1.0) is None
