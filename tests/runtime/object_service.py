"""S3 on this computer for a test: moto's server in a process of its own, and a proxy before it that injects faults."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import msgspec

from runtime.objects.object_settings import load_object_settings, parse_address
from runtime.objects.object_store import ObjectStore, Patience

START_TIMEOUT_S = 60.0
QUICK = Patience(request_s=10, connect_s=2, tries=5, total_s=20, longest_pause_s=0.1)
_HOP = {"connection", "transfer-encoding", "keep-alive"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way through the proxy; number counts from 0 over all."""

    number: int
    method: str
    path: str
    query: str

    @property
    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber=" in self.query

    @property
    def is_completion(self) -> bool:
        return self.method == "POST" and "uploadId=" in self.query


# "503" is answered in place of the service; "cut" ends in the middle of the answer; "lost" does it and does not tell;
# "no-upload" ends the multi-part upload behind the client's back; a number is a pause in seconds.
Fault = str | float | None
Judge = Callable[[Asked], Fault]


class ObjectService:
    """moto's server, with one bucket for each test that asks; `url` goes through the proxy."""

    def __init__(self) -> None:
        self.port = _find_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
        self._wait()
        self.proxy = FaultProxy(self.port)
        self.url = f"http://127.0.0.1:{self.proxy.port}"
        self.quick = QUICK
        self._buckets = 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "sesame-opens-nothing",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }

    def make_bucket(self) -> str:
        self._buckets += 1
        name = f"bucket-{os.getpid()}-{self._buckets}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=20).close()
        return name

    def open(self, address: str, patience: Patience = QUICK, **changes: str) -> ObjectStore:
        settings = load_object_settings({**self.environment, "HOME": "/nonexistent", **changes})
        return ObjectStore(parse_address(address), settings, patience)

    def close(self) -> None:
        self.proxy.close()
        self.process.kill()
        self.process.wait(20)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            assert self.process.poll() is None and time.monotonic() < deadline, "moto's server does not start"
            time.sleep(0.05)


class FaultProxy:
    """Hands every request on, unless `judge` says what is to happen to it; `asked` has them all."""

    def __init__(self, target: int) -> None:
        self.judge: Judge = lambda _asked: None
        self.on_request: Callable[[Asked], None] = lambda _asked: None
        self.asked: list[Asked] = []
        self.headers: dict[int, dict[str, str]] = {}
        self._target = target
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                pass  # clients that give up are what the tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle(self, client: BaseHTTPRequestHandler) -> None:
        body = client.rfile.read(int(client.headers.get("Content-Length") or 0))
        parts = urlsplit(client.path)
        with self._lock:
            asked = Asked(number=len(self.asked), method=client.command, path=parts.path, query=parts.query)
            self.asked.append(asked)
            self.headers[asked.number] = {name.lower(): value for name, value in client.headers.items()}
            fault = self.judge(asked)
        self.on_request(asked)
        if isinstance(fault, float):
            time.sleep(fault)
            fault = None
        if fault is not None and fault.isdigit():
            self._refuse(client, int(fault))
            return
        if fault == "no-upload":
            self._forward(client, "DELETE", _without_part(client.path), b"")
        answer, data = self._forward(client, client.command, client.path, body)
        if fault == "lost":
            client.close_connection = True
            return
        client.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP | {"content-length"}:
                client.send_header(name, value)
        length = answer.getheader("Content-Length") if client.command == "HEAD" else str(len(data))
        client.send_header("Content-Length", length or "0")
        client.end_headers()
        client.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        client.close_connection = client.close_connection or fault == "cut"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _forward(
        self, client: BaseHTTPRequestHandler, method: str, path: str, body: bytes
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        with contextlib.closing(connection):
            headers = {name: value for name, value in client.headers.items() if name.lower() not in _HOP}
            headers["Content-Length"] = str(len(body))
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()

    def _refuse(self, client: BaseHTTPRequestHandler, status: int) -> None:
        code = {503: "SlowDown", 403: "AccessDenied", 500: "InternalError"}[status]
        data = f"<Error><Code>{code}</Code><Message>told to</Message></Error>".encode()
        client.send_response(status)
        client.send_header("Content-Length", str(len(data)))
        client.end_headers()
        client.wfile.write(data if client.command != "HEAD" else b"")


@contextlib.contextmanager
def serve_objects() -> Iterator[ObjectService]:
    service = ObjectService()
    try:
        yield service
    finally:
        service.close()


def _without_part(path: str) -> str:
    return re.sub(r"partNumber=\d+&?", "", path)


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
