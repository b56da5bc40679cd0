"""What is wrong with a text as YAML, and where. Raised while a file is read, turned into problems by yaml_source."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ruamel.yaml.error import MarkedYAMLError


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Counted from 1, as editors do; 0 means unknown."""

    line: int = 0
    column: int = 0


NOWHERE = Position()


class Flaw(Exception):
    """Reading on makes no sense, or (when collected) this much is wrong already."""

    def __init__(self, message: str, *, at: Position = NOWHERE, code: str = "yaml_syntax", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.code = code
        self.fix = fix


class _Explanation(msgspec.Struct, frozen=True):
    """A pattern of the parser's words, ours, the fix; is_at_start: the mistake is where it began, not stopped."""

    pattern: str
    message: str
    fix: str
    is_at_start: bool = False
    code: str = "yaml_syntax"


TAB_MESSAGE = "a tab; YAML is indented with spaces"
TAB_FIX = "Replace the tab by spaces."
_EXPLANATIONS = (
    _Explanation(r"character '\\t'", TAB_MESSAGE, TAB_FIX, code="yaml_tab"),
    _Explanation(r"character '(.)' that", "a value cannot start with `{}`", "Put the value in quotes."),
    _Explanation(
        r"mapping values are not allowed",
        "a colon is not expected here",
        "Line the key up with its neighbours, or put a text that has a colon in quotes.",
    ),
    _Explanation(r"find expected ':'", "the `:` after this key is missing", "Write `key: value`.", True),
    _Explanation(
        r"expected ',' or '(.)'",
        "a comma is missing here, or the closing `{}` of the bracket of line {line}",
        "Close the bracket, or put a comma between the entries.",
    ),
    _Explanation(
        r"unknown escape character '(.*)'",
        "`\\{}` means nothing in a text in double quotes",
        "Use single quotes, or write the backslash twice.",
    ),
    _Explanation(
        r"expected <block end>|expected the node content|expected <document start>|expected '<document start>'",
        "this does not fit the lines above it",
        "Compare the indentation with the lines above, and look for a missing quote or bracket.",
    ),
)


def explain_syntax(error: MarkedYAMLError) -> Flaw:
    """The parser's error in our words."""
    stopped = _find_position(error.problem_mark)
    began = _find_position(error.context_mark or error.problem_mark)
    problem = str(error.problem or error.context or "unknown")
    if "quoted scalar" in str(error.context) and "unexpected" in problem:
        return Flaw("the text in quotes that starts here has no end", at=began, fix="Add the closing quote.")
    for each in _EXPLANATIONS:
        match = re.search(each.pattern, problem)
        if match:
            message = each.message.format(*match.groups(), line=began.line)
            return Flaw(message, at=began if each.is_at_start else stopped, code=each.code, fix=each.fix)
    return Flaw(f"this cannot be read as YAML: {problem}", at=stopped, fix="Compare it with an example in jobs/.")


def _find_position(mark: Any) -> Position:
    return Position(line=mark.line + 1, column=mark.column + 1) if mark else NOWHERE
