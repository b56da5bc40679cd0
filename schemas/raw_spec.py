"""Reading from data that may still be wrong: what is not of the expected type counts as not given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.yaml_source import KeyPath


def find_value(data: Any, path: KeyPath) -> Any:
    """What stands at path, or None."""
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def find_text(data: Any, path: KeyPath) -> str:
    value = find_value(data, path)
    return value if isinstance(value, str) else ""


def find_number(data: Any, path: KeyPath) -> float | None:
    value = find_value(data, path)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def find_list(data: Any, path: KeyPath) -> list[Any]:
    value = find_value(data, path)
    return value if isinstance(value, list) else []


def find_mapping(data: Any, path: KeyPath) -> dict[str, Any]:
    value = find_value(data, path)
    return value if isinstance(value, dict) else {}
