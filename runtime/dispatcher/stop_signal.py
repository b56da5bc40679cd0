"""That the dispatcher is to stop, and why: from a signal, `--stop`, or the batch's deadline. Waited for by the dispatcher."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from schemas.status import StopReason


class StopSignal:
    """`asked` is set by the first wish to stop, `urgent` by a Ctrl-C after it: then nothing in flight is waited for."""

    def __init__(self, reason: StopReason | None = None) -> None:
        self.asked = asyncio.Event()
        self.urgent = asyncio.Event()
        self.reason = reason
        if reason is not None:
            self.asked.set()

    def ask(self, reason: StopReason | None) -> None:
        """The first reason that is given stays."""
        self.reason = self.reason or reason
        self.asked.set()

    def listen(self, read_reason: Callable[[], StopReason | None]) -> None:
        """Take SIGTERM and SIGINT from now on."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: self.ask(read_reason()))
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def _interrupt(self) -> None:
        if self.asked.is_set():
            self.urgent.set()
        self.ask(None)
