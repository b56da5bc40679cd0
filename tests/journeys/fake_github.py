"""The comments of pull requests, as a server on this computer that speaks GitHub's REST for them."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "ghs-token"
_LIST = re.compile(r"/repos/[\w-]+/[\w-]+/issues/(\d+)/comments")
_ONE = re.compile(r"/repos/[\w-]+/[\w-]+/issues/comments/(\d+)")


class FakeGitHub:
    """comments: everything that was written, oldest first; strict about the token, as the real one."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*outer._serve("GET", self.path, self._token(), None))

            def do_POST(self) -> None:
                self._answer(*outer._serve("POST", self.path, self._token(), self._read()))

            def do_PATCH(self) -> None:
                self._answer(*outer._serve("PATCH", self.path, self._token(), self._read()))

            def log_message(self, *_: Any) -> None:
                pass

            def _token(self) -> str:
                return self.headers.get("Authorization", "").removeprefix("Bearer ")

            def _read(self) -> Any:
                return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, status: int, data: Any) -> None:
                body = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, body: str, *, kind: str = "User") -> dict[str, Any]:
        comment = {
            "id": len(self.comments) + 1,
            "body": body,
            "user": {"type": kind},
            "html_url": "https://example.org/1",
        }
        self.comments.append(comment)
        return comment

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _serve(self, method: str, path: str, token: str, data: Any) -> tuple[int, Any]:
        if token != TOKEN:
            return 403, {"message": "Resource not accessible by integration"}
        parts = urlsplit(path)
        if method == "PATCH" and (found := _ONE.fullmatch(parts.path)):
            comment = self.comments[int(found[1]) - 1]
            comment["body"] = data["body"]
            return 200, comment
        if not _LIST.fullmatch(parts.path):
            return 404, {"message": "Not Found"}
        if method == "POST":
            return 201, self.add(data["body"], kind="Bot")
        query = parse_qs(parts.query)
        size, page = int(query["per_page"][0]), int(query["page"][0])
        return 200, self.comments[(page - 1) * size : page * size]
