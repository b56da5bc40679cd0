"""The JSON Schemas of a job, a template and a policy, as files, as one self-contained text each, and as data to check with."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

SchemaName = Literal["job", "template", "policy"]
Schema = Mapping[str, Any]

_FOLDER = Path(__file__).parent
# Whose $defs a schema refers to.
_TAKES_FROM: Mapping[SchemaName, tuple[str, ...]] = {"job": ("template", "notify"), "policy": ("notify",)}
_OTHER_DEFS = re.compile(r"(template|notify)\.schema\.json#/\$defs/")


def render_schema(name: SchemaName) -> str:
    """The schema as JSON text that needs no second file; this is what `./inv schema` prints."""
    return json.dumps(load_schema(name), indent=2, ensure_ascii=False) + "\n"


@functools.cache
def load_schema(name: SchemaName) -> Schema:
    """The schema as data, with what it takes from other schemas put into its own $defs."""
    schema = _read(name)
    taken = [_read(other)["$defs"] for other in _TAKES_FROM.get(name, ())]
    if not taken:
        return schema
    definitions: dict[str, Any] = {}
    for each in (schema.get("$defs", {}), *taken):
        definitions |= each
    bundled: Schema = _point_inside({**schema, "$defs": definitions})
    return bundled


def follow(schema: Schema, root: Schema) -> Schema:
    """The schema that a `$ref` into $defs stands for, or the schema itself."""
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    found: Schema = root["$defs"][reference.removeprefix("#/$defs/")]
    return found


def list_properties(root: Schema) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every property that the schema defines, as the keys that lead there (list items add none) and its schema."""
    yield from _walk(root, root, ())


def _read(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((_FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def _point_inside(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _point_inside(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_point_inside(item) for item in value]
    return _OTHER_DEFS.sub("#/$defs/", value) if isinstance(value, str) else value


def _walk(schema: Schema, root: Schema, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Schema]]:
    schema = follow(schema, root)
    for key, value in schema.get("properties", {}).items():
        yield (*path, key), follow(value, root)
        yield from _walk(value, root, (*path, key))
    if isinstance(schema.get("items"), dict):
        yield from _walk(schema["items"], root, path)
