"""What both emulated clouds have in common: the HTTP server, the stages of a call, the history, scripted faults, the ticker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from providers.emulators.account import Account
from providers.emulators.admin import answer_admin
from providers.emulators.call import JSON, Answer, Call, LineCut, Refused
from providers.emulators.contract import Contract
from providers.emulators.history import Exchange, readable_body

_MAX_BODY = 8 * 2**20
_TICK_S = 0.1
_HTML = (
    b"<!DOCTYPE html><html><head><title>503</title></head><body><h1>Service temporarily unavailable</h1></body></html>"
)


class CloudServer(ABC):
    """One cloud on one port of 127.0.0.1. Everything happens on one event loop, so nothing here needs a lock."""

    base_path: str

    def __init__(self, account: Account, *, contract: Contract) -> None:
        self.account = account
        self.contract = contract
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._ticker: asyncio.Task[None] | None = None

    @abstractmethod
    async def respond(self, call: Call) -> Answer | web.StreamResponse:
        """The cloud's own stages: key, rate, contract, action."""

    @property
    def base_url(self) -> str:
        return f"{self.account.url}{self.base_path}"

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self.handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.account.port = self._runner.addresses[0][1]
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """End the server and every machine that it made."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        if self._runner is not None:
            await self._runner.cleanup()
        await self.account.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/_emulator/"):
            return (await answer_admin(self.account, request)).to_response()
        self.account.clock.run_due()
        started = time.time()
        raw = await request.read()
        call = self._make_call(request, raw)
        exchange = self._make_exchange(call, started)
        self.account.history.begin(exchange)
        answer: Answer | web.StreamResponse | None = None
        try:
            answer = await self._answer_with_faults(call)
            return answer.to_response() if isinstance(answer, Answer) else answer
        except LineCut:
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from None
        finally:
            self.account.history.finish(self._complete(exchange, call, answer, started))

    async def _answer_with_faults(self, call: Call) -> Answer | web.StreamResponse:
        """Put a scripted answer in the place of the real one, or spoil the real one."""
        if self.account.faults.take("api_down", call.subject):
            call.fault = "api_down"
            return Answer(status=503, raw=_HTML, content_type="text/html")
        script = self.account.faults.take("http_error", call.subject)
        if script is None:
            return await self._answer_safely(call)
        call.fault = "http_error"
        answer = await self._answer_safely(call) if script.get("after_commit") or script.get("garble") else None
        await asyncio.sleep(float(script.get("delay_s", 0)))
        if script.get("cut"):
            raise LineCut
        if script.get("garble") and isinstance(answer, Answer):
            return garble(answer, str(script["garble"]))
        if "status" not in script:
            return answer if answer is not None else await self._answer_safely(call)
        text = script.get("body", "")
        raw = text.encode() if isinstance(text, str) else msgspec.json.encode(text)
        headers = script.get("headers", {})
        return Answer(
            status=int(script["status"]), raw=raw, content_type=script.get("content_type", JSON), headers=headers
        )

    async def _answer_safely(self, call: Call) -> Answer | web.StreamResponse:
        try:
            return await self.respond(call)
        except Refused as refusal:
            call.fault = refusal.fault or call.fault
            call.detail = refusal.detail
            return refusal.answer

    def _make_call(self, request: web.Request, raw: bytes) -> Call:
        return Call(
            request=request,
            number=next(self._numbers),
            method=request.method,
            path=unquote(request.rel_url.raw_path),
            query=dict(request.query),
            raw=raw,
            body=readable_body(raw),
        )

    def _make_exchange(self, call: Call, started: float) -> Exchange:
        return Exchange(
            number=call.number,
            time=self.account.clock.now(),
            real_time=started,
            method=call.method,
            path=call.path,
            query=call.query,
            body=call.body,
            user_agent=call.request.headers.get("User-Agent", ""),
        )

    def _complete(
        self, exchange: Exchange, call: Call, answer: Answer | web.StreamResponse | None, started: float
    ) -> Exchange:
        return msgspec.structs.replace(
            exchange,
            status=0 if answer is None else answer.status,
            key=call.key,
            detail=call.detail,
            fault=call.fault,
            machine=call.machine,
            seconds=time.time() - started,
            broken=self._find_broken(call, answer),
        )

    def _find_broken(self, call: Call, answer: Answer | web.StreamResponse | None) -> tuple[str, ...]:
        """How our own answer misses the contract; scripted answers may miss it."""
        if not isinstance(answer, Answer) or call.operation is None or call.fault:
            return ()
        body: Any = msgspec.json.decode(answer.content()) if answer.body is not None else None
        return tuple(self.contract.answer_problems(call.operation, answer.status, answer.content_type, body))

    async def _tick(self) -> None:
        """Let time pass for what nobody asks about: processes that start and end."""
        while True:
            self.account.clock.run_due()
            self.account.watch_machines()
            await asyncio.sleep(max(0.01, self.account.clock.until_next_real_s(at_most=_TICK_S)))


def garble(answer: Answer, how: str) -> Answer:
    """Spoil an answer's body: truncate, empty, html or bytes."""
    content = answer.content()
    spoiled = {
        "truncate": content[: len(content) // 2],
        "empty": b"",
        "html": _HTML,
        "bytes": b"\x00\xff\xfe" + content[3:][::-1],
    }[how]
    return Answer(status=answer.status, raw=spoiled, content_type=answer.content_type, headers=answer.headers)
