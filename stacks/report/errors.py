"""The failed lines of a run, grouped by what went wrong: read line by line, so that a million of them cost little memory.

Called by stacks.report.data.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec

from schemas.status import StopReason
from stacks.run_folder import RunFolder

EXAMPLES = 3
_MOST_GROUPS = 200
_MOST_REMEMBERED = 20_000
_MESSAGE_LETTERS = 400
_ALIKE_LETTERS = 160
_ID_LETTERS = 120
_FIGURES = re.compile(rb"\d+")
_LOOKED_AT_BYTES = 2000
_OTHER = "other messages"
_STOP_CODES = frozenset(get_args(StopReason))


class ErrorExample(msgspec.Struct, frozen=True, kw_only=True):
    custom_id: str
    message: str


class ErrorGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that failed alike. kind: `HTTP 400`, or the error's code; not_run: stopped before their turn."""

    kind: str
    count: int
    not_run: bool
    examples: tuple[ErrorExample, ...]


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent group first. unreadable: lines that are no result, such as one that a crash cut off."""

    lines: int = 0
    unreadable: int = 0
    groups: tuple[ErrorGroup, ...] = ()

    @property
    def not_run(self) -> int:
        return sum(group.count for group in self.groups if group.not_run)


class _Response(msgspec.Struct, gc=False):
    status_code: int
    body: msgspec.Raw


class _Error(msgspec.Struct, gc=False):
    code: str
    message: str = ""


class _Line(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class _Tally:
    """Counts groups while lines go by; what a failure looks like is worked out once for each text that comes again."""

    def __init__(self) -> None:
        self.lines = self.unreadable = 0
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], list[ErrorExample]] = {}
        self._known: dict[tuple[str, bytes], tuple[str, str]] = {}
        self._decode = msgspec.json.Decoder(_Line).decode

    def add(self, data: bytes) -> None:
        self.lines += 1
        line = self._read(data)
        if line is None:
            self.unreadable += 1
            return
        key = self._find_key(line)
        self._counts[key] = self._counts.get(key, 0) + 1
        examples = self._examples.setdefault(key, [])
        if len(examples) < EXAMPLES:
            examples.append(ErrorExample(custom_id=line.custom_id[:_ID_LETTERS], message=_tell_message(line)))

    def make_report(self) -> ErrorReport:
        ranked = sorted(self._counts, key=lambda key: (-self._counts[key], key))
        groups = tuple(
            ErrorGroup(
                kind=key[0],
                count=self._counts[key],
                not_run=key[0] in _STOP_CODES,
                examples=tuple(self._examples[key]),
            )
            for key in ranked
        )
        return ErrorReport(lines=self.lines, unreadable=self.unreadable, groups=groups)

    def _read(self, data: bytes) -> _Line | None:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._decode(data)
        with contextlib.suppress(ValueError, RecursionError, msgspec.MsgspecError):
            # What JSON allows and msgspec refuses, such as half of a surrogate pair.
            return msgspec.convert(_make_plain(json.loads(data)), _Line)
        return None

    def _find_key(self, line: _Line) -> tuple[str, str]:
        """Bodies that differ in figures alone are looked at once: reading JSON costs more than masking it."""
        response, error = line.response, line.error
        if response:
            kind, text = f"HTTP {response.status_code}", bytes(response.body)[:_LOOKED_AT_BYTES]
        else:
            kind, text = (error.code, error.message.encode()) if error else ("unknown", b"")
        masked = (kind, _FIGURES.sub(b"#", text))
        key = self._known.get(masked)
        if key is None:
            key = self._choose_key(kind, line)
            if len(self._known) < _MOST_REMEMBERED:
                self._known[masked] = key
        return key

    def _choose_key(self, kind: str, line: _Line) -> tuple[str, str]:
        alike = _FIGURES.sub(b"#", _tell_message(line)[:_ALIKE_LETTERS].encode()).decode()
        is_new = (kind, alike) not in self._counts
        return (kind, _OTHER) if is_new and len(self._counts) >= _MOST_GROUPS else (kind, alike)


def read_errors(folder: RunFolder) -> ErrorReport | None:
    """What is in error.jsonl, or in its part while the run goes on; None where there is no such file."""
    for path in (folder.errors, folder.errors.with_name(f"{folder.errors.name}.part")):
        with contextlib.suppress(FileNotFoundError):
            return _read_file(path)
    return None


def _read_file(path: Path) -> ErrorReport:
    tally = _Tally()
    with path.open("rb") as file:
        for data in file:
            tally.add(data)
    return tally.make_report()


def _make_plain(data: Any) -> Any:
    """Text without halves of surrogate pairs, and a body as JSON of its own, as the fast reader has it."""
    if not isinstance(data, dict):
        return data
    response = data.get("response")
    if isinstance(response, dict):
        response = {**response, "body": msgspec.Raw(json.dumps(response.get("body")).encode())}
    return {**_mend({key: value for key, value in data.items() if key != "response"}), "response": response}


def _mend(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode("utf-8", "replace").decode("utf-8")
    if isinstance(data, dict):
        return {_mend(key): _mend(value) for key, value in data.items()}
    return [_mend(each) for each in data] if isinstance(data, list) else data


def _tell_message(line: _Line) -> str:
    if line.response is None:
        return (line.error.message if line.error else "")[:_MESSAGE_LETTERS]
    body = bytes(line.response.body)
    with contextlib.suppress(ValueError, RecursionError):
        found = _find_message(json.loads(body))
        if found:
            return found.encode("utf-8", "replace").decode("utf-8")[:_MESSAGE_LETTERS]
    return body[: 2 * _MESSAGE_LETTERS].decode("utf-8", "replace")[:_MESSAGE_LETTERS]


def _find_message(body: Any) -> str:
    """The sentence in an error's body, as OpenAI, vLLM, FastAPI and llama.cpp place it; "" where it has none."""
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return ""
    for name in ("error", "message", "detail"):
        value = body.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and (found := _find_message(value)):
            return found
    return ""
