"""A vendor's OpenAPI document as a judge: are a request's query and body, or our own answer, what it says? Used by both servers.

Tests of clients use it too: `load_contract("runpod-september").request_problems("POST", "/v2/pods", {}, body)`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT202012

ContractName = Literal["runpod-august", "runpod-september", "lambda"]

_FOLDER = Path(__file__).with_name("contracts")
_ROOT = "urn:contract"
_METHODS = ("get", "post", "put", "patch", "delete")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path of the document; allowed are all methods of that path, upper case."""

    template: str
    method: str
    spec: dict[str, Any]
    parameters: tuple[dict[str, Any], ...]
    path_values: dict[str, str]
    allowed: tuple[str, ...]


class NoSuchPath(LookupError):
    pass


class MethodNotAllowed(LookupError):
    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(", ".join(allowed))
        self.allowed = allowed


@functools.cache
def load_contract(name: ContractName) -> Contract:
    """Load one of the documents that ship with the emulators."""
    return Contract(json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8")))


class Contract:
    """Problems come as a list of strings in the words that RunPod's service uses: `$.gpu: missing property 'id'`."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        resource = DRAFT202012.create_resource(_translate_refs(document))
        self._registry: Registry[Any] = Registry().with_resource(_ROOT, resource)
        self._paths = sorted(document["paths"], key=lambda path: (path.count("{"), path))
        self._validators: dict[str, Draft202012Validator] = {}

    def find_operation(self, method: str, path: str) -> Operation:
        """Raises NoSuchPath, or MethodNotAllowed with the methods of that path."""
        for template in self._paths:
            values = _match_path(template, path)
            if values is None:
                continue
            item = self.document["paths"][template]
            allowed = tuple(name.upper() for name in _METHODS if name in item)
            if method.upper() not in allowed:
                raise MethodNotAllowed(allowed)
            spec = item[method.lower()]
            parameters = [self._resolve(part) for part in [*item.get("parameters", []), *spec.get("parameters", [])]]
            return Operation(
                template=template,
                method=method.upper(),
                spec=spec,
                parameters=tuple(parameters),
                path_values=values,
                allowed=allowed,
            )
        raise NoSuchPath(path)

    def request_problems(self, method: str, path: str, query: Mapping[str, str], body: Any) -> list[str]:
        """Everything that is wrong with a request; a path that is not in the document is one problem."""
        try:
            operation = self.find_operation(method, path)
        except LookupError as error:
            return [f"no such operation: {method} {path} ({error})"]
        return [*self.query_problems(operation, query), *self.body_problems(operation, body)]

    def query_problems(self, operation: Operation, query: Mapping[str, str]) -> list[str]:
        """Only parameters that the document names are judged: the services ignore others."""
        problems = []
        for parameter in operation.parameters:
            if parameter["in"] != "query" or parameter["name"] not in query:
                continue
            schema = parameter["schema"]
            value = self._read_parameter(schema, query[parameter["name"]])
            where = f"query.{parameter['name']}"
            problems += self._judge(schema, value, where)
        return problems

    def body_problems(self, operation: Operation, body: Any) -> list[str]:
        request_body = operation.spec.get("requestBody")
        if request_body is None:
            return []
        if body is None:
            return ["$: missing request body"] if request_body.get("required") else []
        return self._judge(request_body["content"]["application/json"]["schema"], body, "$")

    def answer_problems(self, operation: Operation, status: int, content_type: str, body: Any) -> list[str]:
        """Does one of our answers keep to the document? Used by the tests, and by the emulators on themselves."""
        responses = operation.spec["responses"]
        response = responses.get(str(status)) or responses.get("default")
        if response is None:
            return [f"status {status} is not in the document"]
        content = self._resolve(response).get("content")
        if content is None:
            return [] if body is None else [f"status {status} has no body in the document"]
        if content_type not in content:
            return [f"content type {content_type} instead of {', '.join(content)}"]
        if content_type == "text/event-stream":
            return []
        return self._judge(content[content_type]["schema"], body, "$")

    def known_fields(self, operation: Operation) -> set[str]:
        """Top-level names of the request body, for documents that do not close their schemas."""
        schema = operation.spec.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        return self._properties(schema)

    def _judge(self, schema: dict[str, Any], value: Any, where: str) -> list[str]:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator(_translate_refs(schema), registry=self._registry)
        errors = sorted(self._validators[key].iter_errors(value), key=lambda error: [str(p) for p in error.path])
        return list(dict.fromkeys(text for error in errors for text in self._describe(error, where)))

    def _describe(self, error: ValidationError, where: str) -> Iterable[str]:
        place = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        wanted: Any = error.validator_value
        instance: Any = error.instance
        if error.validator == "required":
            missing = [name for name in wanted if name not in instance]
            return [f"{place}: missing property '{name}'" for name in missing]
        if error.validator in ("unevaluatedProperties", "additionalProperties"):
            unknown = sorted(set(instance) - self._properties(error.schema))
            names = ", ".join(f"'{name}'" for name in unknown)
            return [f"{place}: additional properties {names} not allowed"] if unknown else []
        if error.validator == "enum":
            words = ", ".join(f"'{word}'" for word in wanted)
            return [f"{place}: value must be one of {words}"]
        if error.validator == "type":
            return [f"{place}: got {_type_name(instance)}, want {wanted if isinstance(wanted, str) else wanted[0]}"]
        if error.validator in ("anyOf", "oneOf", "allOf", "then", "else"):
            parts = [text for part in error.context or () for text in self._describe(part, where)]
            return parts or [f"{place}: {error.message}"]
        return [f"{place}: {error.message}"]

    def _properties(self, schema: Any) -> set[str]:
        """Names that a schema knows, through $ref and allOf."""
        if not isinstance(schema, dict):
            return set()
        names = set(schema.get("properties", {}))
        if "$ref" in schema:
            names |= self._properties(self._resolve({"$ref": schema["$ref"].removeprefix(_ROOT)}))
        for part in schema.get("allOf", ()):
            names |= self._properties(part)
        return names

    def _resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        """Follow a reference of the document, as often as it takes."""
        while "$ref" in node:
            found: Any = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = found
        return node

    def _read_parameter(self, schema: dict[str, Any], text: str) -> Any:
        """A query parameter's text as the type that its schema asks for; text that cannot be read stays text."""
        kind = self._resolve(schema).get("type")
        if kind == "array":
            return text.split(",") if text else []
        if kind == "integer" and re.fullmatch(r"-?\d+", text):
            return int(text)
        if kind == "boolean" and text in ("true", "false"):
            return text == "true"
        return text


def _match_path(template: str, path: str) -> dict[str, str] | None:
    wanted, given = template.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    values = {}
    for part, actual in zip(wanted, given, strict=True):
        if part.startswith("{"):
            if not actual:
                return None
            values[part.strip("{}")] = actual
        elif part != actual:
            return None
    return values


def _translate_refs(node: Any) -> Any:
    """A copy whose references point into the registered document."""
    if isinstance(node, dict):
        return {
            key: _ROOT + value if key == "$ref" and isinstance(value, str) else _translate_refs(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_translate_refs(part) for part in node]
    return node


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
