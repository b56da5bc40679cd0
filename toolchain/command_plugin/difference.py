"""What changed between a command's old inputs and its new ones, as Pulumi's detailed diff; the servicer calls it."""

from __future__ import annotations

from pulumi.runtime.proto import provider_pb2

from toolchain.command_plugin.properties import Properties, Value, has_unknown, is_secret

Kind = provider_pb2.PropertyDiff.Kind
_PLAIN = {"add": Kind.ADD, "delete": Kind.DELETE, "update": Kind.UPDATE}
_REPLACE = {"add": Kind.ADD_REPLACE, "delete": Kind.DELETE_REPLACE, "update": Kind.UPDATE_REPLACE}

# The SDK asks the engine to replace for `triggers[*]`; a list of triggers that comes or goes has no index to match.
_REPLACING = frozenset({"triggers"})


def make_diff(old: Properties, new: Properties) -> provider_pb2.DiffResponse:
    response = provider_pb2.DiffResponse(hasDetailedDiff=True)
    for path, change in _compare("", old, _without_internal(new)):
        top = path.split(".")[0].split("[")[0]
        kind = (_REPLACE if path in _REPLACING else _PLAIN)[change]
        response.detailedDiff[path].CopyFrom(provider_pb2.PropertyDiff(kind=kind))
        if top not in response.diffs:
            response.diffs.append(top)
        if path in _REPLACING:
            response.replaces.append(top)
    response.changes = response.DIFF_SOME if response.diffs else response.DIFF_NONE
    return response


def _compare(path: str, old: Value, new: Value) -> list[tuple[str, str]]:
    if old == new and not has_unknown(new):
        return []
    if isinstance(old, dict) and isinstance(new, dict) and not is_secret(old) and not is_secret(new):
        prefix = f"{path}." if path else ""
        return _compare_items([(f"{prefix}{key}", old.get(key), new.get(key)) for key in sorted({*old, *new})])
    if isinstance(old, list) and isinstance(new, list):
        length = max(len(old), len(new))
        pairs = [(f"{path}[{at}]", _at(old, at), _at(new, at)) for at in range(length)]
        return _compare_items(pairs)
    if old is None:
        return [(path, "add")]
    return [(path, "delete" if new is None else "update")]


def _compare_items(items: list[tuple[str, Value, Value]]) -> list[tuple[str, str]]:
    return [change for path, old, new in items for change in _compare(path, old, new)]


def _at(items: list[Value], index: int) -> Value:
    return items[index] if index < len(items) else None


def _without_internal(inputs: Properties) -> Properties:
    return {key: value for key, value in inputs.items() if key != "version" and not key.startswith("__")}
