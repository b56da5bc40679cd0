"""Pulumi's wire form of property values (secrets, unknowns) as plain Python trees; the servicer and the diff call it.

A tree stays as it came, secrets wrapped, so that an output which repeats an input is as secret as the input was.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2

TYPE_KEY = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

# A property value: None, bool, int, float, str, list or dict, with secrets wrapped as the wire has them.
Value = Any
Properties = dict[str, Value]


def read_struct(struct: struct_pb2.Struct) -> Properties:
    return json_format.MessageToDict(struct)


def make_struct(properties: Properties) -> struct_pb2.Struct:
    return json_format.ParseDict(properties, struct_pb2.Struct())


def is_secret(value: Value) -> bool:
    return isinstance(value, dict) and value.get(TYPE_KEY) == _SECRET


def make_secret(value: Value) -> Value:
    return value if is_secret(value) else {TYPE_KEY: _SECRET, "value": value}


def open_secret(value: Value) -> Value:
    """Take one wrapper off, if there is one."""
    return value["value"] if is_secret(value) else value


def reveal(value: Value) -> Value:
    """Take every secret wrapper off, at every depth."""
    value = open_secret(value)
    if is_secret(value):
        return reveal(value)
    if isinstance(value, dict):
        return {key: reveal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [reveal(item) for item in value]
    return value


def has_unknown(value: Value) -> bool:
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return bool(value == UNKNOWN)
