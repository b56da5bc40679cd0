"""The JSON Schemas of a job and a template, as files, as one self-contained text each, and as data to check with."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

SchemaName = Literal["job", "template"]
Schema = Mapping[str, Any]

_FOLDER = Path(__file__).parent
_TEMPLATE_DEFS = "template.schema.json#/$defs/"


def render_schema(name: SchemaName) -> str:
    """The schema as JSON text that needs no second file; this is what `./inv schema` prints."""
    return json.dumps(load_schema(name), indent=2, ensure_ascii=False) + "\n"


@functools.cache
def load_schema(name: SchemaName) -> Schema:
    """The schema as data, with what the job's takes from the template's put into its own $defs."""
    schema = _read(name)
    if name == "template":
        return schema
    definitions = {**schema["$defs"], **_read("template")["$defs"]}
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


def _read(name: SchemaName) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((_FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def _point_inside(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _point_inside(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_point_inside(item) for item in value]
    if isinstance(value, str) and value.startswith(_TEMPLATE_DEFS):
        return "#/$defs/" + value.removeprefix(_TEMPLATE_DEFS)
    return value


def _walk(schema: Schema, root: Schema, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Schema]]:
    schema = follow(schema, root)
    for key, value in schema.get("properties", {}).items():
        yield (*path, key), follow(value, root)
        yield from _walk(value, root, (*path, key))
    if isinstance(schema.get("items"), dict):
        yield from _walk(schema["items"], root, path)
