"""What an unquoted word of YAML 1.2 means (its core schema): `no` and `on` are text. Called by the tree's builder."""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

MAX_WHOLE_NUMBER = 2**53
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def parse_scalar(text: str) -> Scalar:
    """The value of a plain scalar; raises ValueError for numbers that no field can hold."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("infinity and not-a-number cannot be used here")
    if _INTEGER.fullmatch(text) or _PREFIXED.fullmatch(text):
        return _parse_integer(text)
    if _FLOAT.fullmatch(text):
        return _parse_float(text)
    return text


def _parse_integer(text: str) -> int:
    # Python refuses texts of thousands of digits with a message of its own, so length is looked at first.
    number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) <= 24 else MAX_WHOLE_NUMBER + 1
    if abs(number) > MAX_WHOLE_NUMBER:
        raise ValueError("this number is too large")
    return number


def _parse_float(text: str) -> float:
    number = float(text)
    if abs(number) > 1e300:
        raise ValueError("this number is too large")
    return number
