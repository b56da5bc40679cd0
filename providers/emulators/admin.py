"""`/_emulator/...`: what tests and people turn and read on a running emulator, with a token of its own; no cloud has it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from providers.emulators.call import Answer
from providers.emulators.history import readable_body

if TYPE_CHECKING:
    from providers.emulators.cloud_server import CloudServer

TOKEN_HEADER = "X-Emulator-Token"


async def answer_admin(server: CloudServer, request: web.Request) -> Answer:
    given = request.headers.get(TOKEN_HEADER, "") or request.query.get("token", "")
    if not secrets.compare_digest(given.encode(), server.settings.admin_token.encode()):
        return Answer(status=401, body={"error": f"the header {TOKEN_HEADER} must hold the emulator's token"})
    server.clock.run_due()
    body = readable_body(await request.read())
    head, _, rest = request.path.removeprefix("/_emulator/").partition("/")
    action = ACTIONS.get((request.method, head))
    if action is None:
        known = ", ".join(f"{method} /_emulator/{name}" for method, name in ACTIONS)
        return Answer(status=404, body={"error": f"no such admin route; there are: {known}"})
    try:
        return Answer(status=200, body=action(server, rest, dict(request.query), body))
    except (KeyError, TypeError, ValueError) as error:
        return Answer(status=400, body={"error": str(error)})


def list_faults(server: CloudServer, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    return server.faults.describe()


def set_faults(server: CloudServer, _rest: str, _query: dict[str, str], body: Any) -> Any:
    """One turn {name, value, count, match} or a list of them."""
    for turn in body if isinstance(body, list) else [body]:
        server.faults.set(turn["name"], turn.get("value", True), count=turn.get("count"), match=turn.get("match", ""))
    return {"ok": True}


def clear_faults(server: CloudServer, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    server.faults.clear()
    return {"ok": True}


def list_history(server: CloudServer, _rest: str, query: dict[str, str], _body: Any) -> Any:
    """since: only exchanges with a higher number."""
    since = int(query.get("since", "0"))
    return [msgspec.to_builtins(exchange) for exchange in server.history.all() if exchange.number > since]


def list_machines(server: CloudServer, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    return [msgspec.to_builtins(machine) for machine in server.summaries()]


def strike_machine(server: CloudServer, rest: str, _query: dict[str, str], body: Any) -> Any:
    server.strike(rest, body["event"])
    return {"ok": True}


def set_stock(server: CloudServer, _rest: str, _query: dict[str, str], body: Any) -> Any:
    server.set_stock(body["kind"], body["region"], int(body["units"]), body.get("tier", ""))
    return {"ok": True}


def read_clock(server: CloudServer, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    return {"now": server.clock.now(), "speed": server.clock.speed}


def advance_clock(server: CloudServer, rest: str, query: dict[str, str], body: Any) -> Any:
    server.clock.advance(float(body["advance_s"]))
    return read_clock(server, rest, query, body)


def shut_down(server: CloudServer, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    server.stopped.set()
    return {"ok": True}


ACTIONS: dict[tuple[str, str], Callable[[CloudServer, str, dict[str, str], Any], Any]] = {
    ("GET", "faults"): list_faults,
    ("PUT", "faults"): set_faults,
    ("DELETE", "faults"): clear_faults,
    ("GET", "history"): list_history,
    ("GET", "machines"): list_machines,
    ("POST", "machines"): strike_machine,
    ("PUT", "stock"): set_stock,
    ("GET", "clock"): read_clock,
    ("POST", "clock"): advance_clock,
    ("POST", "shutdown"): shut_down,
}
