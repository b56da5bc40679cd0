"""A real HTTP server on this computer that keeps what it is sent, and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

HANG = 0
HANG_UP = -1


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request: its path, headers in lower case, and body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class HookServer:
    """answers: statuses in order, the last one for ever; HANG accepts and never answers, HANG_UP ends
    the connection without an answer."""

    def __init__(self, *answers: int) -> None:
        self.calls: list[Call] = []
        self.closing = threading.Event()
        self._answers: Sequence[int] = answers or (200,)
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._serve(self)

            def do_GET(self) -> None:
                outer._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def events(self) -> list[str]:
        return [call.data["event"] for call in self.calls]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.calls.append(Call(path=handler.path, headers=headers, body=body))
            answer = self._answers[min(len(self.calls), len(self._answers)) - 1]
        if answer == HANG:
            self.closing.wait(60)
            return
        if answer == HANG_UP:
            handler.close_connection = True
            return
        handler.send_response(answer)
        if 300 <= answer < 400:
            handler.send_header("Location", f"{self.url}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
