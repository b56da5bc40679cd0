"""One request to an emulated cloud and the answer to it, as the server's stages hand them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from providers.emulators.contract import Operation

JSON = "application/json"


class Call(msgspec.Struct, kw_only=True):
    """What was asked. key, machine, fault and detail are filled in on the way, for the history."""

    request: web.Request
    number: int
    method: str
    path: str
    query: dict[str, str]
    raw: bytes
    body: Any
    operation: Operation | None = None
    key: str = "none"
    machine: str = ""
    fault: str = ""
    detail: str = ""

    @property
    def subject(self) -> str:
        """What knobs about requests are matched with."""
        return f"{self.method} {self.path}"

    def path_value(self, name: str) -> str:
        assert self.operation is not None
        return self.operation.path_values[name]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """body is sent as JSON; raw, when given, is sent as it is; neither: no content."""

    status: int
    body: Any = None
    raw: bytes | None = None
    content_type: str = JSON
    headers: Mapping[str, str] = {}

    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else msgspec.json.encode(self.body)

    def to_response(self) -> web.Response:
        content = self.content()
        headers = dict(self.headers)
        if content or self.raw is not None:
            headers["Content-Type"] = self.content_type
        return web.Response(status=self.status, body=content, headers=headers)


class Refused(Exception):
    """Ends a call early with this answer."""

    def __init__(self, answer: Answer, *, fault: str = "", detail: str = "") -> None:
        super().__init__(detail)
        self.answer = answer
        self.fault = fault
        self.detail = detail


class LineCut(Exception):
    """The connection is closed without an answer."""
