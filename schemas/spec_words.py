"""Values, types and suggestions in words, for the messages of the checks."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "keys and values",
    "null": "nothing",
}
_PLAIN = re.compile(r"[A-Za-z/][\w./@:+-]*[\w/]|[A-Za-z]")
_NOT_PLAIN = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


def describe_value(value: Any, text: str) -> str:
    """What was found; text is the value as it was written."""
    short = text if len(text) <= 60 else text[:57] + "..."
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {short}"
    if isinstance(value, str):
        return f"the text {quote(short)}" if value else "an empty text"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "keys and values"


def describe_types(types: str | list[str]) -> str:
    """`text`, `a whole number or text`, ..."""
    names = [types] if isinstance(types, str) else types
    return join_words([_TYPES[name] for name in names], last="or")


def join_words(words: Iterable[str], *, last: str) -> str:
    """`a, b or c`."""
    unique = list(dict.fromkeys(words))
    if len(unique) < 2:
        return "".join(unique)
    return f"{', '.join(unique[:-1])} {last} {unique[-1]}"


def suggest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known word that was probably meant, or an empty text."""
    names = {_fold(name): name for name in known}
    longer = [name for folded, name in names.items() if len(word) > 2 and folded.startswith(_fold(word))]
    if len(longer) == 1:
        return longer[0]
    matches = difflib.get_close_matches(_fold(word), names, n=1, cutoff=cutoff)
    return names[matches[0]] if matches else ""


def render_value(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {render_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(render_value(item) for item in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_PLAIN:
        return value
    return quote(value)


def quote(value: Any) -> str:
    """A value as JSON, which is YAML too."""
    return json.dumps(value, ensure_ascii=False)


def _fold(word: str) -> str:
    return re.sub(r"[^a-z0-9/.]", "", word.lower())
