"""Tokens as engines count them, read from an answer's `usage` without touching the rest. Called by results and recovery."""

from __future__ import annotations

import contextlib
import json

import msgspec


class Tokens(msgspec.Struct, gc=False):
    """Tokens of one answer, or the sum of many."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def add(self, other: Tokens) -> None:
        self.input += other.input
        self.cached += other.cached
        self.output += other.output
        self.reasoning += other.reasoning


NO_TOKENS = Tokens()  # never added to


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: _Usage | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode


def read_tokens(body: bytes | msgspec.Raw) -> Tokens | None:
    """The tokens that a body tells (zeros if it tells none), or None when the body is not valid JSON."""
    try:
        usage = _decode_answer(body).usage
    except msgspec.ValidationError:
        # Another shape than ours is not an error, but the reader stopped at it: the rest is unchecked.
        return NO_TOKENS if is_json(bytes(body)) else None
    except (msgspec.DecodeError, RecursionError):
        return NO_TOKENS if is_json(bytes(body)) else None
    if not _is_utf8(body):
        return None
    return NO_TOKENS if usage is None else _sum_up(usage)


def is_json(data: bytes) -> bool:
    """Whether data is one JSON value. Lone surrogate escapes pass, which msgspec refuses; NaN and Infinity do not."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        _decode_raw(data)
        return _is_utf8(data)
    try:
        json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _sum_up(usage: _Usage) -> Tokens:
    given = usage.prompt_tokens_details or usage.input_tokens_details
    made = usage.completion_tokens_details or usage.output_tokens_details
    return Tokens(
        usage.prompt_tokens or usage.input_tokens or 0,
        (given.cached_tokens or 0) if given else 0,
        usage.completion_tokens or usage.output_tokens or 0,
        (made.reasoning_tokens or 0) if made else 0,
    )


def _is_utf8(data: bytes | msgspec.Raw) -> bool:
    data = bytes(data)
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
