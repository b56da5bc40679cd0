"""Time as an argument: the protocol that every wait here takes, the real clock, and how long each wait may be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

OnEvent = Callable[[str, str, dict[str, Any]], None]
"""Called with an event's name, one sentence for people, and its data."""


class Clock(Protocol):
    """now: seconds since 1970, comparable between processes; monotonic: seconds, for waits within this process."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The computer's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """How long things may take, in seconds; every wait on a cloud is built from these and a settle window.

    request_timeout_s: longest that one create can be under way. poll_s: between two looks. terminate_s: for a machine
    that is given back while others wait. give_up_s: for a cloud that does not answer or asks us to wait.
    """

    request_timeout_s: float = 120.0
    poll_s: float = 2.0
    terminate_s: float = 20.0
    give_up_s: float = 180.0


DEFAULT_WAITS = Waits()


def ignore_event(_event: str, _message: str, _data: dict[str, Any]) -> None:
    """An OnEvent for callers who do not listen."""
