"""The inputs of both resource types, named as in `pulumi_command`: defaults and checks; the servicer calls it."""

from __future__ import annotations

from collections.abc import Iterator

from toolchain.command_plugin.properties import (
    UNKNOWN,
    Properties,
    Value,
    is_secret,
    make_secret,
    open_secret,
    reveal,
)
from toolchain.command_plugin.recording import LOGGING_VALUES

LOCAL = "command:local:Command"
REMOTE = "command:remote:Command"
CONNECTION_DEFAULTS: Properties = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}

_BOTH = ("addPreviousOutputInEnv", "create", "delete", "environment", "logging", "stdin", "triggers", "update")
INPUT_NAMES = {
    LOCAL: frozenset({*_BOTH, "archivePaths", "assetPaths", "dir", "interpreter"}),
    REMOTE: frozenset({*_BOTH, "connection"}),
}

_TEXTS = ("create", "delete", "dir", "logging", "stdin", "update")
_UNSUPPORTED = {
    "archivePaths": "archives of files are not supported by this stand-in for the command plugin",
    "assetPaths": "assets are not supported by this stand-in for the command plugin",
}
_NO_PROXY = "a proxy is not supported by this stand-in for the command plugin"


def fill_defaults(type_name: str, inputs: Properties) -> Properties:
    """Return the inputs as they are stored: with the real plugin's defaults, the connection always secret."""
    filled = {"addPreviousOutputInEnv": True, **_without_nulls(inputs)}
    connection = filled.get("connection")
    if type_name == REMOTE and connection is not None:
        filled["connection"] = make_secret(_fill_connection(open_secret(connection)))
    return filled


def find_problems(type_name: str, inputs: Properties) -> Iterator[tuple[str, str]]:
    """Yield (property, reason); a value that is not known yet is not judged."""
    for name in sorted(inputs):
        if name not in INPUT_NAMES[type_name] and not name.startswith("__") and name != "version":
            yield name, f"{type_name} has no input of this name"
    plain = reveal(inputs)
    for name in _TEXTS:
        if not isinstance(plain.get(name), str | None):
            yield name, "must be text"
    if plain.get("logging") not in {None, UNKNOWN, *LOGGING_VALUES}:
        yield "logging", f"must be one of {', '.join(sorted(LOGGING_VALUES))}"
    yield from _find_environment_problems(plain.get("environment"))
    yield from ((name, reason) for name, reason in _UNSUPPORTED.items() if plain.get(name))
    if type_name == REMOTE:
        yield from _find_connection_problems(plain.get("connection"))


def _find_environment_problems(environment: Value) -> Iterator[tuple[str, str]]:
    if environment in (None, UNKNOWN):
        return
    if not isinstance(environment, dict) or not all(isinstance(item, str) for item in environment.values()):
        yield "environment", "must be a map of text to text"


def _find_connection_problems(connection: Value) -> Iterator[tuple[str, str]]:
    if connection == UNKNOWN:
        return
    if not isinstance(connection, dict):
        yield "connection", "is required: at least {host: ...}"
    elif not connection.get("host"):
        yield "connection.host", "is required"
    elif connection.get("proxy"):
        yield "connection.proxy", _NO_PROXY


def _fill_connection(connection: Value) -> Value:
    if not isinstance(connection, dict) or is_secret(connection):
        return connection
    return {**CONNECTION_DEFAULTS, **_without_nulls(connection)}


def _without_nulls(values: Properties) -> Properties:
    return {key: value for key, value in values.items() if value is not None}
