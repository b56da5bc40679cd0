"""`/_emulator/...`: what tests and people turn and read on a running emulator, with a token of its own; no cloud has it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from providers.emulators.account import Account
from providers.emulators.call import Answer
from providers.emulators.history import readable_body

TOKEN_HEADER = "X-Emulator-Token"


async def answer_admin(account: Account, request: web.Request) -> Answer:
    given = request.headers.get(TOKEN_HEADER, "") or request.query.get("token", "")
    if not secrets.compare_digest(given.encode(), account.settings.admin_token.encode()):
        return Answer(status=401, body={"error": f"the header {TOKEN_HEADER} must hold the emulator's token"})
    account.clock.run_due()
    body = readable_body(await request.read())
    head, _, rest = request.path.removeprefix("/_emulator/").partition("/")
    action = ACTIONS.get((request.method, head))
    if action is None:
        known = ", ".join(f"{method} /_emulator/{name}" for method, name in ACTIONS)
        return Answer(status=404, body={"error": f"no such admin route; there are: {known}"})
    try:
        return Answer(status=200, body=action(account, rest, dict(request.query), body))
    except (KeyError, TypeError, ValueError) as error:
        return Answer(status=400, body={"error": str(error)})


def list_faults(account: Account, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    return account.faults.describe()


def set_faults(account: Account, _rest: str, _query: dict[str, str], body: Any) -> Any:
    """One turn {name, value, count, match} or a list of them."""
    for turn in body if isinstance(body, list) else [body]:
        account.faults.set(turn["name"], turn.get("value", True), count=turn.get("count"), match=turn.get("match", ""))
    return {"ok": True}


def clear_faults(account: Account, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    account.faults.clear()
    return {"ok": True}


def list_history(account: Account, _rest: str, query: dict[str, str], _body: Any) -> Any:
    """since: only exchanges with a higher number."""
    since = int(query.get("since", "0"))
    return [msgspec.to_builtins(exchange) for exchange in account.history.all() if exchange.number > since]


def list_machines(account: Account, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    return [msgspec.to_builtins(machine) for machine in account.summaries()]


def strike_machine(account: Account, rest: str, _query: dict[str, str], body: Any) -> Any:
    account.strike(rest, body["event"])
    return {"ok": True}


def set_stock(account: Account, _rest: str, _query: dict[str, str], body: Any) -> Any:
    account.set_stock(body["kind"], body["region"], int(body["units"]), body.get("tier", ""))
    return {"ok": True}


def read_clock(account: Account, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    return {"now": account.clock.now(), "speed": account.clock.speed}


def advance_clock(account: Account, rest: str, query: dict[str, str], body: Any) -> Any:
    account.clock.advance(float(body["advance_s"]))
    return read_clock(account, rest, query, body)


def shut_down(account: Account, _rest: str, _query: dict[str, str], _body: Any) -> Any:
    account.stopped.set()
    return {"ok": True}


ACTIONS: dict[tuple[str, str], Callable[[Account, str, dict[str, str], Any], Any]] = {
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
