"""A child process that an event loop waits for. Started by the tunnel and the heartbeat.

By subprocess.Popen and not by the loop: uvloop lets children inherit descriptors, and a copy of a pipe's end that
lives in another child hides the end of the pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

POLL_S = 0.05
END_TIMEOUT_S = 3.0
_TAIL_BYTES = 2000


class Child:
    """In a session of its own, so that a Ctrl-C at our terminal does not reach it; leaving the context ends it."""

    def __init__(self, arguments: Sequence[str], *, has_stdin: bool = False) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __aexit__
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    async def wait(self) -> int:
        """Its exit code, negative for a signal."""
        while (code := self.process.poll()) is None:
            await asyncio.sleep(POLL_S)
        return code

    def read_messages(self) -> list[str]:
        """The last lines that it wrote to stderr."""
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - _TAIL_BYTES))
        return self._errors.read().decode("utf-8", "replace").splitlines()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if self.is_running:
                self.process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_TIMEOUT_S):
                        await self.wait()
        finally:
            if self.is_running:
                self.process.kill()
                self.process.wait()
            self._errors.close()
