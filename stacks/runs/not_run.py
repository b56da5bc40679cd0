"""Counts the requests of a stopped batch that were never run: their lines in error.jsonl carry the stop's code. For the receipt."""

from __future__ import annotations

import contextlib
from typing import get_args

import msgspec

from schemas.status import StopReason
from stacks.run_folder import RunFolder

_STOP_CODES = frozenset(get_args(StopReason))


class _Error(msgspec.Struct):
    code: str | None = None


class _Line(msgspec.Struct):
    error: _Error | None = None


def count_not_run(folder: RunFolder) -> int:
    """0 for a batch that was not stopped, or has no file of errors yet."""
    count = 0
    decode = msgspec.json.Decoder(_Line).decode
    with contextlib.suppress(OSError), folder.errors.open("rb") as file:
        for line in file:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                error = decode(line).error
                count += error is not None and error.code in _STOP_CODES
    return count
