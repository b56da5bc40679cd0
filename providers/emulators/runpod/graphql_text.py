"""Reads as much of a GraphQL text as the emulator needs: which operation it names, and that operation's input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\$\w+|[\w.+-]+|[{}\[\]:]')


def find_operation(text: str, known: Sequence[str]) -> str | None:
    """The first of the known names that is used as a field."""
    return next((name for name in known if re.search(rf"[{{\s]{name}\s*[({{}}]", text)), None)


def read_input(text: str, operation: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The object after `input:` of the operation, from the text or from a variable; {} when there is none."""
    match = re.search(rf"\b{operation}\s*\((.*)", text, re.S)
    start = re.search(r"\binput\s*:\s*", match[1]) if match else None
    if match is None or start is None:
        return {}
    tokens = _TOKEN.findall(match[1][start.end() :])
    value = _read_value(tokens, variables)
    return value if isinstance(value, dict) else {}


def _read_value(tokens: list[str], variables: Mapping[str, Any]) -> Any:
    token = tokens.pop(0) if tokens else "null"
    if token == "{":
        content = {}
        while tokens and tokens[0] != "}":
            name = tokens.pop(0)
            if tokens and tokens[0] == ":":
                tokens.pop(0)
            content[name] = _read_value(tokens, variables)
        del tokens[:1]
        return content
    if token == "[":
        items = []
        while tokens and tokens[0] != "]":
            items.append(_read_value(tokens, variables))
        del tokens[:1]
        return items
    if token.startswith("$"):
        return variables.get(token[1:])
    try:
        return msgspec.json.decode(token)
    except msgspec.DecodeError:
        return token
