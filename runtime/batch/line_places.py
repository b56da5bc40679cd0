"""Where a field stands in a line of JSON, so that an editor can jump to it. Called by batch_input for the lines it reports."""

from __future__ import annotations

import json
import re

_SPACE = re.compile(r"[ \t\r\n]*")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_decoder = json.JSONDecoder()


def find_column(line: bytes, path: str) -> int:
    """The column, from 1 and in characters, of the value that a path such as `body.messages[0].role` names.

    Of a path whose end is not there it is the column of what is; 0 when the line cannot be read, or path is empty.
    """
    text = line.decode("utf-8", "replace")
    at = _skip(text, 0)
    found = False
    try:
        for key, index in _STEP.findall(path):
            deeper = _enter_list(text, at, int(index)) if index else _enter_object(text, at, key)
            if deeper < 0:
                break
            at, found = deeper, True
    except (ValueError, IndexError, RecursionError):
        return 0
    return at + 1 if found else 0


def _enter_object(text: str, at: int, wanted: str) -> int:
    """Where the value of a key starts; of a key given twice the last, as JSON's readers take it; -1 without it."""
    if text[at] != "{":
        return -1
    found, at = -1, _skip(text, at + 1)
    while text[at] != "}":
        key, at = _decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        found = at if key == wanted else found
        at = _skip(text, _decoder.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
    return found


def _enter_list(text: str, at: int, wanted: int) -> int:
    if text[at] != "[":
        return -1
    index, at = 0, _skip(text, at + 1)
    while text[at] != "]":
        if index == wanted:
            return at
        at = _skip(text, _decoder.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
        index += 1
    return -1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
