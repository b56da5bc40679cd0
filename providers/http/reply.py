"""What a cloud answered, read without trusting it: text first, JSON if it parses, every field of any type.

The HTTP client makes a Reply; each cloud's file reads it with these readers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_MAX_WORDS = 400
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)
_LONG_CODE = re.compile(r"[A-Za-z0-9+/=_-]{60,}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-amzn-requestid", "cf-ray")


class GarbledAnswer(ValueError):
    """A success whose body does not say what it must say; the client turns it into one of our errors."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer. headers are lower case; data is the parsed JSON, or None when the body is not JSON."""

    status: int
    headers: Mapping[str, str] = {}
    text: str = ""
    data: Any = None

    @property
    def request_id(self) -> str:
        found = (self.headers.get(name, "") for name in _REQUEST_ID_HEADERS)
        return clean(next((value for value in found if value), ""), at_most=80)


def make_reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Read a body as UTF-8 text whatever it is, and as JSON where it is JSON."""
    text = body.decode("utf-8", "replace")
    return Reply(status=status, headers=headers, text=text, data=parse_json(text))


def parse_json(text: str) -> Any:
    """The JSON in text, or None; too deep nesting and numbers that do not exist in JSON count as not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def get(data: Any, *keys: str) -> Any:
    """The value under a path of object keys, None where the path ends early."""
    for key in keys:
        if not isinstance(data, dict):
            return None
        data = data.get(key)
    return data


def read_text(value: Any) -> str:
    """Text, or a number as text; "" for everything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def read_number(value: Any) -> float | None:
    """A finite number, also when it is written as text; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_count(value: Any) -> int:
    """A whole number of at least 0; 0 for everything else."""
    number = read_number(value)
    return int(number) if number is not None and 0 <= number < 2**53 else 0


def read_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def read_texts(value: Any) -> tuple[str, ...]:
    return tuple(text for text in map(read_text, read_list(value)) if text)


def require_list(data: Any, *keys: str) -> Sequence[Any]:
    """The list under a path, which must be there: a listing that cannot be read must never look like an empty one."""
    value = get(data, *keys)
    if not isinstance(value, list):
        raise GarbledAnswer(f"the answer has no list {'.'.join(keys)!r}")
    return value


def require_id(value: Any) -> str:
    """An id that can be put into a path and named to a person."""
    text = read_text(value)
    if _ID.fullmatch(text) is None:
        raise GarbledAnswer("the answer names no usable id")
    return text


def clean(text: str, *, secrets: Sequence[str] = (), at_most: int = _MAX_WORDS) -> str:
    """A cloud's words for people: one line, printable, not too long, no secrets and nothing like a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = _LONG_CODE.sub("***", _PEM.sub("***", text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= at_most else f"{text[: at_most - 3]}..."
