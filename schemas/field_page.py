"""The page about jobs and templates: its tables come from the schemas, its examples from jobs/. `./inv schema --page` calls it.

What stands between `<!-- fields: job -->` or `<!-- file: jobs/a.yaml -->` and the next `<!-- end -->` is made; the rest of the
page is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from schemas.spec_schema import Schema, SchemaName, follow, list_properties, load_schema
from schemas.spec_words import describe_types, join_words, quote, render_value

PAGE = Path("docs") / "jobs.md"
_BLOCK = re.compile(r"<!-- (fields|file): (\S+) -->\n.*?<!-- end -->", re.DOTALL)
# Shown once, in the tables of the template.
_ELSEWHERE = {"job": (("deploy",), ("overrides", "engine_args")), "template": ()}
_Kind = Literal["fields", "file"]


def update_page(text: str, *, root: Path) -> str:
    """The page with every made part as it must be now; root is the project's folder."""
    return _BLOCK.sub(lambda match: _make_block(match[1], match[2], root), text)


def render_fields(name: SchemaName) -> str:
    """Every field of a job, or of a template, as Markdown: one table for each mapping."""
    root = load_schema(name)
    tables: dict[tuple[str, ...], list[str]] = {}
    for path, schema in list_properties(root):
        if not any(path[: len(each)] == each and len(path) > len(each) for each in _ELSEWHERE[name]):
            tables.setdefault(path[:-1], []).append(_render_row(path, schema, root))
    return "\n".join(_render_table(path, rows, name, root) for path, rows in tables.items())


def _make_block(kind: str, argument: str, root: Path) -> str:
    if kind == "file":
        made = f"```yaml\n{(root / argument).read_text(encoding='utf-8')}```\n"
    else:
        names: tuple[SchemaName, ...] = get_args(SchemaName)
        made = render_fields(next(name for name in names if name == argument))
    return f"<!-- {kind}: {argument} -->\n{made}<!-- end -->"


def _render_table(path: tuple[str, ...], rows: list[str], name: SchemaName, root: Schema) -> str:
    title = f"`{'.'.join(path)}`" if path else f"The {name} itself"
    about = str(_find_schema(path, root).get("description", "")) if path else ""
    head = f"### {title}\n\n{about}\n\n" if about else f"### {title}\n\n"
    return head + "| field | what it is | value | left out |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _render_row(path: tuple[str, ...], schema: Schema, root: Schema) -> str:
    cells = (
        f"`{path[-1]}`",
        str(schema.get("description", "")),
        _describe(schema),
        _describe_absence(path, schema, root),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _describe(schema: Schema) -> str:
    """The value in words: its choices, or its type with bounds, and an example."""
    if "enum" in schema or "const" in schema:
        words = [word if isinstance(word, str) else quote(word) for word in schema.get("enum", [schema.get("const")])]
        return ", ".join(f"`{word}`" for word in dict.fromkeys(words))
    bounds = ", ".join(_list_bounds(schema))
    text = describe_types(schema.get("type", "object")) + (f", {bounds}" if bounds else "")
    example = schema.get("examples", [None])[0]
    is_short = not isinstance(example, dict) and len(render_value(example)) <= 60
    return f"{text}; `{render_value(example)}`" if example is not None and is_short else text


def _list_bounds(schema: Schema) -> Iterator[str]:
    for key, words in (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most")):
        if key in schema:
            yield f"{words} {schema[key]:,}"
    if "maxItems" in schema:
        yield f"at most {schema['maxItems']} entries"


def _describe_absence(path: tuple[str, ...], schema: Schema, root: Schema) -> str:
    parent = _find_schema(path[:-1], root)
    if path[-1] in parent.get("required", ()):
        return "required"
    branches = [branch["required"][0] for branch in parent.get("oneOf", ())]
    if path[-1] in branches:
        return f"one of {join_words((f'`{name}`' for name in branches), last='and')} is required"
    return f"`{render_value(schema['default'])}`" if "default" in schema else ""


def _find_schema(path: tuple[str, ...], root: Schema) -> Schema:
    """The mapping that a path leads to; of a list that of its entries."""
    schema = root
    for key in path:
        schema = follow(schema["properties"][key], root)
        if isinstance(schema.get("items"), dict) and "properties" in follow(schema["items"], root):
            schema = follow(schema["items"], root)
    return schema
