"""Lines on stderr that show a long step is alive; bootstrap, download and build use it."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_TTY_INTERVAL_S = 1.0
_LOG_INTERVAL_S = 30.0


class Progress:
    """One line a step: on a terminal it counts seconds in place, elsewhere it writes a line every 30 s."""

    def __init__(self, stream: TextIO | None = None, interval_s: float | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_tty = self._stream.isatty()
        self._interval_s = interval_s or (_TTY_INTERVAL_S if self._is_tty else _LOG_INTERVAL_S)

    def say(self, text: str) -> None:
        self._write(f"inv: {text}\n")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show that `text` is going on until the block ends, then how long it took."""
        started = time.monotonic()
        ended = threading.Event()
        self._write(self._fit(f"inv: {text} ...", "") + ("" if self._is_tty else "\n"))
        ticker = threading.Thread(target=self._tick, args=(text, started, ended), daemon=True)
        ticker.start()
        outcome = "failed after"
        try:
            yield
            outcome = "done in"
        finally:
            ended.set()
            ticker.join()
            self._write(f"{self._start_of_line()}inv: {text}: {outcome} {time.monotonic() - started:.0f} s\n")

    def _tick(self, text: str, started: float, ended: threading.Event) -> None:
        while not ended.wait(self._interval_s):
            elapsed_s = time.monotonic() - started
            end = "" if self._is_tty else "\n"
            self._write(f"{self._start_of_line()}{self._fit(f'inv: {text} ...', f' {elapsed_s:.0f} s')}{end}")

    def _fit(self, words: str, figure: str) -> str:
        """One line of a terminal: of a longer one only the last row could be written over."""
        if not self._is_tty:
            return words + figure
        room = shutil.get_terminal_size().columns - len(figure) - 1
        return (words if len(words) <= room else f"{words[: room - 4].rstrip()} ...") + figure

    def _start_of_line(self) -> str:
        return "\r\033[K" if self._is_tty else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
