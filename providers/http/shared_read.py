"""One request for all threads that want the same answer at the same time. Called by clouds that allow few requests a second."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
Depart = Callable[[], None]


class SharedRead(Generic[T]):
    """Who asks while a request still waits for its turn gets that request's answer: it is sent after they asked, so it is
    never older than one of their own would be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Future[T] | None = None

    def fetch(self, fetch: Callable[[Depart], T]) -> T:
        """What fetch returns or raises, ours or the one that waits already; fetch calls its argument when it sends."""
        with self._lock:
            joined = self._waiting
            if joined is None:
                flight = self._waiting = Future[T]()
        if joined is not None:
            return joined.result()
        try:
            flight.set_result(fetch(lambda: self._close(flight)))
        except BaseException as error:
            flight.set_exception(error)
        finally:
            self._close(flight)
        return flight.result()

    def _close(self, flight: Future[T]) -> None:
        """From here on nobody joins it any more."""
        with self._lock:
            if self._waiting is flight:
                self._waiting = None
