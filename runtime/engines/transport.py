"""HTTP and https to one engine, through aiohttp. Nothing is re-sent here: that is for the sender to judge.

Imported where https is asked for (membership): loading aiohttp costs 0.1 s.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
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
from runtime.engines.outcome import read_retry_after

# RuntimeError is what a session says that was closed meanwhile; ValueError comes from what is not HTTP.
_BROKEN = (aiohttp.ClientError, OSError, ValueError, RuntimeError)


class Transport:
    """Requests to one engine. `socket_path` empty: TCP to base_url, else the unix socket (base_url's host is only a name)."""

    def __init__(self, base_url: str, *, endpoint: str, key: str = "", socket_path: Path | None = None) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")  # what OpenAI's clients call the base URL ends with it
        self._url = URL(root + endpoint)
        self._health = URL(root + "/health")
        self._metrics = URL(root + "/metrics")
        self._socket_path = socket_path
        self._headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "leasehold",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._session = self._make_session()

    async def post(self, body: bytes, *, request_id: str) -> Answer:
        """Send one request, wait for its whole answer, however long; raises TransportFailure. Cancelling hangs up."""
        response = None
        try:
            response = await self._session.post(
                self._url, data=body, headers={"X-Request-Id": request_id}, allow_redirects=False
            )
            data = await response.read()
        except aiohttp.ClientConnectorError as error:
            raise TransportFailure("unreachable", f"cannot connect: {error.strerror or error}") from error
        except aiohttp.ServerTimeoutError as error:
            raise TransportFailure("unreachable", f"no connection in {CONNECT_TIMEOUT_S:.0f} s") from error
        except _BROKEN as error:
            raise TransportFailure("broken", _describe(error)) from error
        finally:
            if response is not None:
                response.close()
        headers = response.headers
        retry_after_s = read_retry_after(headers.get("Retry-After")) if response.status >= 400 else 0.0
        told = headers.get("X-Request-Id", request_id).encode("ascii", "backslashreplace").decode()
        return Answer(response.status, data, told, retry_after_s)

    async def check_health(self, *, timeout_s: float) -> Health:
        """`sick`: an answer that says no (5xx); `gone`: its place is there, but nobody answers; `silent`: not in time.

        `unreachable` is a fault on the way (no route, no name) that says nothing about the engine.
        """
        try:
            status, _ = await self._get(self._health, timeout_s)
        except TimeoutError:
            return "silent"
        except aiohttp.ClientConnectorDNSError:
            return "unreachable"
        except aiohttp.ClientConnectorError as error:
            return "unreachable" if error.errno in NO_WAY else "gone"
        except _BROKEN:
            return "gone"
        return "ok" if status < 500 else "sick"

    async def fetch_metrics(self, *, timeout_s: float) -> bytes | None:
        """The metrics page, b"" when this server has none, None when it did not answer now."""
        try:
            status, text = await self._get(self._metrics, timeout_s)
        except _BROKEN:
            return None
        return text if status == 200 else b""

    async def close(self) -> None:
        await self._session.close()

    async def _get(self, url: URL, timeout_s: float) -> tuple[int, bytes]:
        async with asyncio.timeout(timeout_s):
            async with self._session.get(url, allow_redirects=False) as response:
                return response.status, await response.read()

    def _make_session(self) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        if self._socket_path is not None:
            connector = aiohttp.UnixConnector(str(self._socket_path), limit=0, keepalive_timeout=KEEP_ALIVE_S)
        else:
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=60, socket_factory=make_socket
            )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            read_bufsize=256 * 1024,
        )


def _describe(error: Exception) -> str:
    return f"the connection broke: {str(error) or type(error).__name__}"
