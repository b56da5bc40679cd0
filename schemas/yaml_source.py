"""Load a YAML or JSON file as plain data that knows where each key and value stands. Called by job and template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from schemas.errors import Problem
from schemas.shown_path import show_path
from schemas.yaml_flaw import TAB_FIX, TAB_MESSAGE, Flaw, Position
from schemas.yaml_tree import MAX_DEPTH, MAX_NODES, Node, Tree, build_tree

MAX_BYTES = 1 << 20
KeyPath = tuple[str | int, ...]
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_TAB_INDENT = re.compile(r" *\t")
_BATCH_LINE = re.compile(r'\s*\{[^\n]*"custom_id"\s*:')


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says. keys, values: where the key and the value of a path stand; texts: scalars as written."""

    file: str
    data: dict[str, Any]
    keys: Mapping[KeyPath, Position]
    values: Mapping[KeyPath, Position]
    texts: Mapping[KeyPath, str]

    def locate(self, path: KeyPath, *, at_key: bool = False) -> Position:
        """Where the value (or its key) stands; of something that is missing, where it would belong."""
        for end in range(len(path), 0, -1):
            places = self.keys if at_key or end < len(path) else self.values
            position = places.get(path[:end]) or self.values.get(path[:end])
            if position:
                return position
        return self.values.get((), Position(line=1, column=1))

    def make_problem(self, path: KeyPath, message: str, *, code: str, fix: str = "", at_key: bool = False) -> Problem:
        """A problem with the value (or the key) at path."""
        place = self.locate(path, at_key=at_key)
        name = render_path(path)
        return Problem(
            file=self.file, line=place.line, column=place.column, path=name, message=message, code=code, fix=fix
        )


class LoadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """document is None when the file cannot be used at all; then there is at least one problem."""

    document: Document | None = None
    problems: tuple[Problem, ...] = ()


def load_document(path: Path) -> LoadedFile:
    """Read a file whose top is a mapping; whatever is wrong with it comes back as problems, never as an exception."""
    try:
        text = _read_text(path)
    except Flaw as flaw:
        return LoadedFile(problems=(_make_problem(str(path), flaw),))
    return parse_document(text, file=str(path))


def parse_document(text: str, *, file: str) -> LoadedFile:
    """The same for a text; file is the name that problems give."""
    try:
        _check_text(text)
        tree = build_tree(text)
        document = _make_document(tree, file)
    except Flaw as flaw:
        flaws = _find_tabs(text) or [flaw] if flaw.code == "yaml_tab" else [flaw]
        return LoadedFile(problems=tuple(_make_problem(file, each) for each in flaws))
    return LoadedFile(document=document, problems=tuple(_make_problem(file, flaw) for flaw in tree.flaws))


def place_problem(file: Path, path: KeyPath, message: str, *, code: str, fix: str = "") -> Problem:
    """A problem found only later, such as a GPU that no cloud knows, with the place of its value in the file."""
    shown = Path(show_path(file))
    document = load_document(shown).document
    if document is None:
        return Problem(file=str(shown), path=render_path(path), message=message, code=code, fix=fix)
    return document.make_problem(path, message, code=code, fix=fix)


def render_path(path: KeyPath) -> str:
    """`machines.candidates[0].gpu`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _make_problem(file: str, flaw: Flaw) -> Problem:
    return Problem(
        file=file, line=flaw.at.line, column=flaw.at.column, message=flaw.message, code=flaw.code, fix=flaw.fix
    )


def _read_text(path: Path) -> str:
    """The file as text; raises Flaw."""
    try:
        if not path.exists():
            raise Flaw("there is no such file", code="missing_file", fix=_suggest_file(path))
        if not path.is_file():
            raise Flaw("this is not a file", code="not_a_file", fix="Name a YAML or JSON file.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        fix = "See its owner and its permissions (`ls -l`)."
        raise Flaw(f"this file cannot be read: {reason}", code="unreadable", fix=fix) from error
    if len(data) > MAX_BYTES:
        fix = "Is it the batch file? That one goes into `input`."
        raise Flaw("this file has more than 1 MiB, too much for a job or a template", code="too_large", fix=fix)
    return _decode(data)


def _suggest_file(path: Path) -> str:
    beside = [path.with_suffix(suffix) for suffix in (".yaml", ".yml", ".json")] if path.name else []
    for other in beside:
        if other != path and other.is_file():
            return f"Did you mean {other}?"
    return "Check the path; it counts from the folder you are in."


def _decode(data: bytes) -> str:
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Flaw("this is a binary file", code="not_text", fix="Name a YAML or JSON file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        fix = "Save the file as UTF-8."
        raise Flaw("this file is not UTF-8", at=Position(line=line, column=column), code="not_utf8", fix=fix) from error


def _check_text(text: str) -> None:
    if _BATCH_LINE.match(text):
        fix = "Name it as the `input:` of a job; ./inv new prints one."
        raise Flaw(
            "this is a batch file, not a job or a template", at=Position(line=1, column=1), code="batch_file", fix=fix
        )
    match = _CONTROL.search(text)
    if match:
        before = text[: match.start()]
        line, column = before.count("\n") + 1, match.start() - before.rfind("\n")
        message = f"the character U+{ord(match[0]):04X} is not text"
        raise Flaw(message, at=Position(line=line, column=column), code="not_text", fix="Remove it.")


def _find_tabs(text: str) -> list[Flaw]:
    """Every line that is indented with a tab (told only when the parser stumbled over one)."""
    flaws = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _TAB_INDENT.match(line)
        if match:
            at = Position(line=number, column=match.end())
            flaws.append(Flaw(TAB_MESSAGE, at=at, code="yaml_tab", fix=TAB_FIX))
    return flaws[:100]


def _make_document(tree: Tree, file: str) -> Document:
    root = tree.root
    if root is None or (root.kind == "scalar" and root.value is None):
        fix = "Start with `version: 1` and `name: ...`, or let `./inv new` write one."
        raise Flaw("this file is empty", code="empty_file", fix=fix)
    if root.kind != "mapping":
        what = "a list" if root.kind == "list" else "a single value"
        message = f"expected keys and values at the top, found {what}"
        raise Flaw(
            message,
            at=root.at,
            code="not_a_mapping",
            fix="Write lines such as `name: tickets`.",
        )
    document = Document(file=file, data={}, keys={}, values={}, texts={})
    _Unfolding(document).fill(root)
    return document


class _Unfolding:
    """Turns nodes into plain data, aliases written out, and notes positions; bounded, since aliases can multiply."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._keys: dict[KeyPath, Position] = document.keys  # type: ignore[assignment]
        self._values: dict[KeyPath, Position] = document.values  # type: ignore[assignment]
        self._texts: dict[KeyPath, str] = document.texts  # type: ignore[assignment]

    def fill(self, root: Node) -> None:
        self._document.data.update(self._unfold(root, ()))

    def _unfold(self, node: Node, path: KeyPath) -> Any:
        if len(self._values) >= MAX_NODES or len(path) > MAX_DEPTH:
            message = "the aliases in this file unfold to too many values"
            raise Flaw(message, at=node.at, code="too_large", fix="Write the values out.")
        self._values[path] = node.at
        if node.kind == "list":
            return [self._unfold(item, (*path, index)) for index, item in enumerate(node.items)]
        if node.kind == "mapping":
            return {name: self._unfold_pair(key, value, (*path, name)) for name, (key, value) in node.pairs.items()}
        self._texts[path] = node.text
        return node.value

    def _unfold_pair(self, key: Node, value: Node, path: KeyPath) -> Any:
        self._keys[path] = key.at
        return self._unfold(value, path)
