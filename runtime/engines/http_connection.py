"""One HTTP/1.1 connection that carries one request after the other, parsed by httptools. Opened by runtime.engines.fast_http.

It does less than a general client, which is why it is fast: no pipelining, no redirects, no proxies, no cookies.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import cast

import httptools
import msgspec

LARGEST_HEAD_BYTES = 64 * 1024
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_KEPT_HEADERS = frozenset(
    {b"content-encoding", b"content-length", b"retry-after", b"transfer-encoding", b"x-request-id"}
)


class ConnectionBroken(Exception):
    """No whole answer came over this connection; the request may have been worked on."""


class Reply(msgspec.Struct, gc=False):
    """A whole HTTP answer; `headers` has the few that we read, names in small letters."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class HttpConnection(asyncio.Protocol):
    """on_idle is called when an answer is whole and the connection can be used again, on_closed when it is gone."""

    def __init__(
        self, *, on_idle: Callable[[HttpConnection], None], on_closed: Callable[[HttpConnection], None]
    ) -> None:
        self.is_open = False
        self.idle_since = 0.0
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[Reply] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._status = self._head_bytes = 0

    async def exchange(self, request: bytes) -> Reply:
        """Send a whole request, wait for its whole answer; raises ConnectionBroken. Cancelling hangs up."""
        if not self.is_open or self._waiter is not None:
            raise ConnectionBroken("the connection is closed")
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiter = waiter
        self._begin_answer()
        self._head_bytes = 0
        self._transport.write(request)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """Close at once, whatever is under way: this is how an engine learns to drop a request."""
        if self.is_open:
            self.is_open = False
            self._transport.abort()

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:  # nothing was asked: whatever this is, the next answer could not be trusted
            self.hang_up()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"this is not HTTP: {error}")
            return
        if not self._status:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD_BYTES:
                self._fail(f"the answer's head has more than {LARGEST_HEAD_BYTES} bytes")

    def eof_received(self) -> bool:
        """The end of an answer that tells no length."""
        has_length = (
            b"content-length" in self._headers or b"chunked" in self._headers.get(b"transfer-encoding", b"").lower()
        )
        if self._status >= 200 and not has_length:
            self._finish(is_reusable=False)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._fail(str(error) if error else "the server closed it before the answer was whole")
        self._on_closed(self)

    # What the parser tells

    def on_message_begin(self) -> None:
        if self._waiter is None:  # a second answer to one request
            self.hang_up()

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in _KEPT_HEADERS and not self._status:  # what comes later is a trailer
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self._status < 200:  # a hint on the way; the answer follows
            self._begin_answer()
            return
        # An answer that came before all of the request was sent: what is left of it must not be read as the next one.
        is_reusable = self._parser.should_keep_alive() and self._transport.get_write_buffer_size() == 0
        self._finish(is_reusable=is_reusable)

    def _begin_answer(self) -> None:
        self._headers = {}
        self._chunks = []
        self._status = 0

    def _finish(self, *, is_reusable: bool) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        try:
            if b"content-encoding" in self._headers:
                body = _decompress(body, self._headers[b"content-encoding"])
            waiter.set_result(Reply(self._status, self._headers, body))
        except (zlib.error, ValueError) as error:
            waiter.set_exception(ConnectionBroken(f"the answer's body cannot be unpacked: {error}"))
        if is_reusable and self.is_open:
            self._on_idle(self)
        else:
            self.hang_up()

    def _fail(self, why: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionBroken(why))
        self.hang_up()


def _decompress(body: bytes, encoding: bytes) -> bytes:
    """For servers that compress although they were asked not to."""
    kind = encoding.strip().lower()
    if kind in (b"", b"identity"):
        return body
    if kind not in (b"gzip", b"x-gzip", b"deflate"):
        raise ValueError(f"the encoding {encoding!r} is not known")
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    unpacked = unpacker.decompress(body)
    if not unpacker.eof:
        raise ValueError("it is cut")
    return unpacked
