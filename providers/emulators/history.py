"""Every request that reached an emulator, for assertions: what was asked, when, by which kind of key, and the answer's status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

_MAX_TEXT = 200_000


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer; never the Authorization header.

    time is the cloud's clock, real_time ours (seconds since 1970). status 0: not answered (yet), the client hung up or
    we cut the line. key: account, read_only, pod:<id>, bad or none. fault names the knob that decided the answer.
    broken: the answer did not keep to the contract (a bug of the emulator).
    """

    number: int
    time: float
    real_time: float
    method: str
    path: str
    query: dict[str, str] = {}
    body: Any = None
    status: int = 0
    key: str = "none"
    user_agent: str = ""
    detail: str = ""
    fault: str = ""
    machine: str = ""
    seconds: float = 0.0
    broken: tuple[str, ...] = ()


class History:
    """Kept in memory and, when there is a folder, in history.jsonl (0600: bodies may hold secrets)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._exchanges: dict[int, Exchange] = {}
        self._file = None if folder is None else folder / "history.jsonl"
        if self._file is not None:
            self._file.touch(mode=0o600)

    def __len__(self) -> int:
        return len(self._exchanges)

    def all(self) -> list[Exchange]:
        """In the order in which the requests came in."""
        return list(self._exchanges.values())

    def begin(self, exchange: Exchange) -> None:
        """Note a request at once, so that one that is never answered is seen too."""
        self._exchanges[exchange.number] = exchange

    def finish(self, exchange: Exchange) -> None:
        self._exchanges[exchange.number] = exchange
        if self._file is not None:
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(exchange) + b"\n")


def readable_body(raw: bytes) -> Any:
    """JSON as it was sent; text when it is not JSON; None when there is none."""
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw[:_MAX_TEXT].decode("utf-8", "replace")
