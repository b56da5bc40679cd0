"""HTTP to one engine over a tunnel's unix socket or plain TCP, at a fraction of a general client's cost. Chosen by membership.

Idle connections are used again newest first, and closed before a server would. Nothing is re-sent here but GETs.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
from pathlib import Path

from yarl import URL

from runtime.engines.exchange import (
    CONNECT_TIMEOUT_S,
    KEEP_ALIVE_S,
    NO_WAY,
    Answer,
    Health,
    TransportFailure,
    make_socket,
)
from runtime.engines.http_connection import ConnectionBroken, HttpConnection, Reply
from runtime.engines.outcome import read_retry_after

_ADDRESSES_S = 60.0  # how long a name's addresses are believed
_Address = tuple[int, int, int, str, tuple[object, ...]]


class ConnectFailed(Exception):
    """Nothing was sent. is_off_path: a fault on the way, which says nothing about the engine."""

    def __init__(self, message: str, *, is_off_path: bool) -> None:
        super().__init__(message)
        self.is_off_path = is_off_path


class FastTransport:
    """Requests to one engine. `socket_path` empty: TCP to base_url, else the unix socket (base_url's host is only a name)."""

    def __init__(self, base_url: str, *, endpoint: str, key: str = "", socket_path: Path | None = None) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")
        url = URL(root + endpoint)
        common = f" HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\nUser-Agent: leasehold\r\nAccept: */*\r\n"
        common += "Accept-Encoding: identity\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
        self._post_head = f"POST {url.raw_path_qs}{common}Content-Type: application/json\r\n".encode()
        self._health, self._metrics = (
            f"GET {URL(root + path).raw_path_qs}{common}\r\n".encode() for path in ("/health", "/metrics")
        )
        self._pool = _Pool(url.host or "", url.port or 80, socket_path)

    async def post(self, body: bytes, *, request_id: str) -> Answer:
        """Send one request, wait for its whole answer, however long; raises TransportFailure. Cancelling hangs up."""
        try:
            connection = self._pool.take() or await self._pool.connect()
            reply = await connection.exchange(
                b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (self._post_head, request_id.encode(), len(body), body)
            )
        except ConnectFailed as error:
            raise TransportFailure("unreachable", f"cannot connect: {error}") from error
        except ConnectionBroken as error:
            raise TransportFailure("broken", f"the connection broke: {error}") from error
        headers = reply.headers
        if b"x-request-id" in headers:
            request_id = headers[b"x-request-id"].decode("ascii", "backslashreplace")
        if reply.status < 400 or b"retry-after" not in headers:
            return Answer(reply.status, reply.body, request_id)
        retry_after = headers[b"retry-after"].decode("ascii", "replace")
        return Answer(reply.status, reply.body, request_id, read_retry_after(retry_after))

    async def check_health(self, *, timeout_s: float) -> Health:
        """As runtime.engines.transport.Transport has it."""
        try:
            reply = await self._get(self._health, timeout_s)
        except TimeoutError:
            return "silent"
        except ConnectFailed as error:
            return "unreachable" if error.is_off_path else "gone"
        except ConnectionBroken:
            return "gone"
        return "ok" if reply.status < 500 else "sick"

    async def fetch_metrics(self, *, timeout_s: float) -> bytes | None:
        """The metrics page, b"" when this server has none, None when it did not answer now."""
        try:
            reply = await self._get(self._metrics, timeout_s)
        except (TimeoutError, ConnectFailed, ConnectionBroken):
            return None
        return reply.body if reply.status == 200 else b""

    async def close(self) -> None:
        self._pool.close()
        await asyncio.sleep(0)

    async def _get(self, request: bytes, timeout_s: float) -> Reply:
        async with asyncio.timeout(timeout_s):
            connection = self._pool.take()
            if connection is not None:
                with contextlib.suppress(ConnectionBroken):  # the server may have closed it just now
                    return await connection.exchange(request)
            return await (await self._pool.connect()).exchange(request)


class _Pool:
    """Connections to one place: all that are open, and those of them that wait for a request."""

    def __init__(self, host: str, port: int, socket_path: Path | None) -> None:
        self._host, self._port, self._socket_path = host, port, socket_path
        self._loop = asyncio.get_running_loop()
        self._open: set[HttpConnection] = set()
        self._idle: collections.deque[HttpConnection] = collections.deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._addresses: list[_Address] = []
        self._believed_until = 0.0

    def take(self) -> HttpConnection | None:
        """An idle connection that is still good."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and self._loop.time() - connection.idle_since < KEEP_ALIVE_S:
                return connection
            connection.hang_up()
        return None

    async def connect(self) -> HttpConnection:
        """A new connection; raises ConnectFailed."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._connect()
        except TimeoutError as error:
            raise ConnectFailed("no connection in time", is_off_path=True) from error
        except OSError as error:
            is_off_path = error.errno in NO_WAY or isinstance(error, socket.gaierror)
            raise ConnectFailed(error.strerror or str(error), is_off_path=is_off_path) from error
        if self._is_closed:
            connection.hang_up()
            raise ConnectFailed("it was closed meanwhile", is_off_path=False)
        self._open.add(connection)
        return connection

    def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._open):
            connection.hang_up()

    async def _connect(self) -> HttpConnection:
        if self._is_closed:
            raise OSError("it was closed before")
        if self._socket_path is not None:
            _, made = await self._loop.create_unix_connection(self._make_connection, str(self._socket_path))
            return made
        await self._resolve()
        for address in list(self._addresses):
            try:
                made = await self._connect_tcp(address)
            except OSError as error:
                failure = error
                continue
            if address is not self._addresses[0]:
                self._addresses.sort(key=lambda other: other is not address)
            return made
        raise failure

    async def _connect_tcp(self, address: _Address) -> HttpConnection:
        made = make_socket(address)
        try:
            made.setblocking(False)
            async with asyncio.timeout(CONNECT_TIMEOUT_S / (len(self._addresses) + 0.1)):
                await self._loop.sock_connect(made, address[4])
            return (await self._loop.create_connection(self._make_connection, sock=made))[1]
        except BaseException:
            made.close()
            raise

    async def _resolve(self) -> None:
        if self._loop.time() >= self._believed_until or not self._addresses:
            found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses = [(int(entry[0]), int(entry[1]), *entry[2:]) for entry in found]
            self._believed_until = self._loop.time() + _ADDRESSES_S

    def _make_connection(self) -> HttpConnection:
        return HttpConnection(on_idle=self._keep, on_closed=self._open.discard)

    def _keep(self, connection: HttpConnection) -> None:
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(KEEP_ALIVE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long; the oldest are at the left."""
        self._timer = None
        now = self._loop.time()
        while self._idle and now - self._idle[0].idle_since >= KEEP_ALIVE_S - 0.01:
            self._idle.popleft().hang_up()
        if self._idle:
            self._timer = self._loop.call_at(self._idle[0].idle_since + KEEP_ALIVE_S, self._sweep)
