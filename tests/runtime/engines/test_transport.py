"""Both ways to an engine, aiohttp and our own: the same request, the same answers, the same failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engines.exchange import Answer, TransportFailure
from runtime.engines.fast_http import FastTransport
from runtime.engines.transport import Transport

Kind = type[Transport] | type[FastTransport]
KINDS = [Transport, FastTransport]
over_both = pytest.mark.parametrize("kind", KINDS)
Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(respond: Respond, kind: Kind) -> AsyncIterator[Transport | FastTransport]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await respond(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = kind(f"http://127.0.0.1:{port}/v1/", endpoint="/v1/embeddings", key="k")
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


@over_both
async def test_a_request_has_what_an_engine_needs_and_an_answer_what_we_need(kind: Kind) -> None:
    seen: list[bytes] = []
    reply = b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nX-Request-Id: \xc3\xa9\xff\r\nContent-Length: 2\r\n\r\n{}"
    async with served(answering(reply, seen), kind) as transport:
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


async def ask(kind: Kind, reply: bytes) -> Answer | TransportFailure:
    async with served(answering(reply), kind) as transport, asyncio.timeout(5):
        try:
            return await transport.post(b"{}", request_id="r")
        except TransportFailure as failure:
            return failure


@settings(max_examples=80, deadline=None)
@given(REPLIES)
def test_whatever_comes_back_is_an_answer_or_a_failure_and_both_ways_agree_on_bodies(reply: bytes) -> None:
    async def send() -> None:
        found = [await ask(kind, reply) for kind in KINDS]
        for each in found:
            if isinstance(each, TransportFailure):
                assert each.kind in ("broken", "unreachable")
                assert each.message
            else:
                assert 100 <= each.status <= 999
        bodies = {each.body for each in found if isinstance(each, Answer)}
        assert len(bodies) <= 1

    asyncio.run(send())


@over_both
async def test_health_tells_sick_from_gone_from_unreachable_from_silent(kind: Kind, unused_tcp_port: int) -> None:
    async def check(transport: Transport | FastTransport) -> str:
        try:
            return await transport.check_health(timeout_s=0.2)
        finally:
            await transport.close()

    async def nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    async with served(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), kind) as transport:
        assert await check(transport) == "ok"
    async with served(answering(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), kind) as transport:
        assert await check(transport) == "ok"
    async with served(answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), kind) as transport:
        assert await check(transport) == "sick"
    async with served(answering(b""), kind) as transport:
        assert await check(transport) == "gone"
    async with served(nothing, kind) as transport:
        assert await check(transport) == "silent"
    assert await check(kind(f"http://127.0.0.1:{unused_tcp_port}", endpoint="/x")) == "gone"
    assert await check(kind("http://engine", endpoint="/x", socket_path=Path("/nowhere/0.sock"))) == "gone"


@over_both
async def test_a_closed_transport_fails_as_any_other(kind: Kind) -> None:
    transport = kind("http://127.0.0.1:1", endpoint="/x")
    await transport.close()

    with pytest.raises(TransportFailure):
        await transport.post(b"{}", request_id="r")
    assert await transport.check_health(timeout_s=1.0) == "gone"
    assert await transport.fetch_metrics(timeout_s=1.0) is None
