"""What a running command prints: kept for outputs and errors, passed on by line; both kinds of command use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

Log = Callable[[str], Awaitable[None]]

_LOGGED = {
    None: ("stdout", "stderr"),
    "stdout": ("stdout",),
    "stderr": ("stderr",),
    "stdoutAndStderr": ("stdout", "stderr"),
    "none": (),
}
LOGGING_VALUES = frozenset(name for name in _LOGGED if name)
_CHUNK_BYTES = 65536


class CommandFailed(Exception):
    """The command ran and failed, or could not be started; the text is what the engine shows."""


class Reader(Protocol):
    async def read(self, n: int, /) -> bytes: ...


class Recording:
    """Collect both streams of one command; `text` properties drop one trailing newline, as the real plugin does."""

    def __init__(self, log: Log, logging: str | None) -> None:
        self._log = log
        self._logged = _LOGGED[logging]
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}
        self._both = bytearray()

    async def follow(self, name: str, reader: Reader) -> None:
        """Read one stream to its end; the last line counts also without a newline."""
        rest = b""
        while chunk := await reader.read(_CHUNK_BYTES):
            self._streams[name] += chunk
            self._both += chunk
            *lines, rest = (rest + chunk).split(b"\n")
            await self._pass_on(name, lines)
        await self._pass_on(name, [rest] if rest else [])

    async def _pass_on(self, name: str, lines: list[bytes]) -> None:
        if name in self._logged:
            for line in lines:
                await self._log(_decode(line))

    @property
    def stdout(self) -> str:
        return _decode(self._streams["stdout"]).removesuffix("\n")

    @property
    def stderr(self) -> str:
        return _decode(self._streams["stderr"]).removesuffix("\n")

    def make_failure(self, reason: str, command: str) -> CommandFailed:
        return CommandFailed(f"{reason}: running {quote_go(command)}:\n{_decode(self._both)}")


def quote_go(text: str) -> str:
    """Quote like Go's %q: the engine's users know errors in this form."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b"}
    escapes |= {"\f": "\\f", "\v": "\\v"}
    return '"' + "".join(escapes.get(char, _quote_char(char)) for char in text) + '"'


def _quote_char(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _decode(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "replace")
