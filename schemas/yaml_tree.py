"""YAML text as a tree of nodes with positions, built without recursion and within bounds. Called by yaml_source."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from schemas.yaml_flaw import Flaw, Position, explain_syntax
from schemas.yaml_scalar import Scalar, parse_scalar

MAX_DEPTH = 32
MAX_NODES = 20_000


class Node(msgspec.Struct, kw_only=True, eq=False):
    """A scalar, a list or a mapping, and where it starts; text is a scalar as it was written, without its quotes."""

    kind: Literal["scalar", "list", "mapping"]
    at: Position
    text: str = ""
    value: Scalar = None
    items: list[Node] = []
    pairs: dict[str, tuple[Node, Node]] = {}
    is_complete: bool = False


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """The root node, None for a text without any; flaws that do not hinder reading on, such as a key given twice."""

    root: Node | None
    flaws: tuple[Flaw, ...] = ()


@functools.lru_cache(maxsize=64)
def build_tree(text: str) -> Tree:
    """Read one YAML document; raises Flaw where reading on makes no sense.

    Many jobs name one template, and each looks through all templates: a text that was read a moment ago is not read again.
    Nobody changes a tree.
    """
    builder = _Builder()
    for event in _read_events(text):
        builder.take(event)
    return Tree(root=builder.root, flaws=tuple(builder.flaws))


def _read_events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML  # here, since every process of a run imports this module and few read YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        raise explain_syntax(error) from error
    except (YAMLError, ValueError, OverflowError) as error:
        raise Flaw(f"this cannot be read as YAML: {str(error).splitlines()[0]}") from error


class _Builder:
    """Takes the parser's events one by one; open lists and mappings stand on a stack of bounded height."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.flaws: list[Flaw] = []
        self._open: list[Node] = []
        self._keys: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0
        self._nodes = 0

    def take(self, event: Any) -> None:
        name = type(event).__name__
        at = Position(line=event.start_mark.line + 1, column=event.start_mark.column + 1)
        if name == "DocumentStartEvent":
            self._start_document(event, at)
        elif name == "AliasEvent":
            self._add(self._find_anchor(event.anchor, at), at)
        elif name == "ScalarEvent":
            self._add(self._make_scalar(event, at), at, anchor=event.anchor)
        elif name in ("SequenceStartEvent", "MappingStartEvent"):
            self._start_collection(event, "list" if name.startswith("Seq") else "mapping", at)
        elif name in ("SequenceEndEvent", "MappingEndEvent"):
            self._open.pop().is_complete = True
            self._keys.pop()

    def _start_document(self, event: Any, at: Position) -> None:
        self._documents += 1
        if self._documents > 1:
            message = "a second document starts here; a file holds one"
            raise Flaw(
                message, at=at, code="many_documents", fix="Remove the `---`, or put this into a file of its own."
            )
        if event.version and tuple(event.version) != (1, 2):
            message = "this file asks for an older YAML, where words such as `no` are not text"
            first = Position(line=1, column=1)
            self.flaws.append(Flaw(message, at=first, code="yaml_version", fix="Remove the line with %YAML."))

    def _find_anchor(self, name: str, at: Position) -> Node:
        node = self._anchors.get(name)
        if node is None:
            fix = f"Write `&{name}` before the value that is meant, or quotes if the * is text."
            raise Flaw(f"`*{name}` names no anchor", at=at, code="yaml_alias", fix=fix)
        if not node.is_complete:
            raise Flaw(
                f"`*{name}` stands inside of what it names", at=at, code="yaml_alias", fix="Write the value out."
            )
        return node

    def _make_scalar(self, event: Any, at: Position) -> Node:
        self._check_tag(event, at)
        text = _join_surrogates(event.value, at)
        node = Node(kind="scalar", at=at, text=text, value=text, is_complete=True)
        if event.style is None and event.tag is None:
            try:
                node.value = parse_scalar(text)
            except ValueError as error:
                fix = "Write a smaller number, or put it in quotes if it is text."
                self.flaws.append(Flaw(f"`{text[:40]}`: {error}", at=at, code="bad_number", fix=fix))
        return node

    def _start_collection(self, event: Any, kind: Literal["list", "mapping"], at: Position) -> None:
        self._check_tag(event, at)
        if len(self._open) >= MAX_DEPTH:
            message = f"this is nested more than {MAX_DEPTH} levels deep"
            raise Flaw(message, at=at, code="too_deep", fix="See whether a bracket is missing.")
        node = Node(kind=kind, at=at)
        self._add(node, at, anchor=event.anchor)
        self._open.append(node)
        self._keys.append(None)

    def _check_tag(self, event: Any, at: Position) -> None:
        tag = str(event.tag or "")
        if tag not in ("", "!", "tag:yaml.org,2002:str"):
            fix = "Remove it; quotes make text of a value."
            self.flaws.append(Flaw(f"tags such as `{tag[:60]}` are not used here", at=at, code="yaml_tag", fix=fix))

    def _add(self, node: Node, at: Position, anchor: str | None = None) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Flaw(f"this file has more than {MAX_NODES:,} values", at=at, code="too_large")
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        parent, key = self._open[-1], self._keys[-1]
        if parent.kind == "list":
            parent.items.append(node)
        elif key is None:
            self._keys[-1] = self._make_key(node, at)
        else:
            self._add_pair(parent, key, node)
            self._keys[-1] = None

    def _make_key(self, node: Node, at: Position) -> Node:
        if node.kind != "scalar":
            fix = "Put it in quotes if the { or [ is text."
            raise Flaw("a key must be a word, not a list or a mapping", at=at, code="yaml_key", fix=fix)
        if node.text == "<<":
            message = "merging with `<<` is not part of YAML 1.2"
            self.flaws.append(Flaw(message, at=at, code="yaml_merge", fix="Write the keys out."))
        return Node(kind="scalar", at=at, text=node.text, value=node.value, is_complete=True)

    def _add_pair(self, mapping: Node, key: Node, value: Node) -> None:
        if value.value is None and not value.text and value.kind == "scalar":
            # The parser finds "no value" only at the next word, which may be lines away.
            value.at = key.at
        first = mapping.pairs.setdefault(key.text, (key, value))[0]
        if first is not key:
            message = f"`{key.text[:80]}` is given twice; the first is on line {first.at.line}"
            self.flaws.append(Flaw(message, at=key.at, code="duplicate_key", fix="Keep one of the two."))


def _join_surrogates(text: str, at: Position) -> str:
    """Make one character of JSON's escape pairs (`\\ud83d\\ude00`), and refuse halves."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise Flaw("this text has half of a surrogate pair", at=at, fix="Write the character itself.") from error
