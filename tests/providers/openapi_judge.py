"""Judges requests by a vendor's OpenAPI document. Used by the tests of the clouds; knows nothing of our own code."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

FOLDER = Path(__file__).parents[1] / "contracts"
RUNPOD = "runpod-rest-v2-late.openapi.json"
RUNPOD_AUGUST = "runpod-rest-v2.openapi.json"
LAMBDA = "lambda-cloud-v1.openapi.json"


@functools.cache
def load_judge(file: str, base_path: str) -> Judge:
    """The judge of one document, which stays in memory; base_path is what the document's paths start with."""
    return Judge(json.loads((FOLDER / file).read_text(encoding="utf-8")), base_path)


class Judge:
    def __init__(self, document: dict[str, Any], base_path: str) -> None:
        self.document = document
        self.base_path = base_path
        self.registry: Registry[Any] = Registry().with_resource(
            "urn:doc", Resource(contents=document, specification=DRAFT202012)
        )

    def find_problems(self, request: httpx.Request) -> list[str]:
        """Everything about a request that the document does not allow."""
        found = self._find_operation(request)
        if found is None:
            return [f"no such operation: {request.method} {request.url.path}"]
        operation, item = found
        body = json.loads(request.content) if request.content else None
        return [*self._query_problems(operation, item, request), *self._body_problems(operation, body)]

    def judge_answer(self, method: str, template: str, status: int, data: Any) -> list[str]:
        """Is an answer, as a test makes one up, what the document says?"""
        content = self.resolve(self.document["paths"][template][method]["responses"][str(status)])["content"]
        return self._judge(next(iter(content.values()))["schema"], data)

    def _find_operation(self, request: httpx.Request) -> tuple[dict[str, Any], dict[str, Any]] | None:
        for template, item in self.document["paths"].items():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, request.url.raw_path.decode().split("?")[0]) and request.method.lower() in item:
                return item[request.method.lower()], item
        return None

    def _query_problems(self, operation: dict[str, Any], item: dict[str, Any], request: httpx.Request) -> list[str]:
        parameters = [self.resolve(each) for each in (*item.get("parameters", []), *operation.get("parameters", []))]
        known = {each["name"]: each for each in parameters if each["in"] == "query"}
        problems = [f"unknown parameter {name}" for name in request.url.params if name not in known]
        for name, text in request.url.params.items():
            if name in known:
                schema = self.resolve(known[name]["schema"])
                problems += self._judge(known[name]["schema"], _read(schema.get("type"), text))
        return problems

    def _body_problems(self, operation: dict[str, Any], body: Any) -> list[str]:
        if "requestBody" not in operation:
            return [] if body is None else ["a body where none is taken"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        known = self.resolve(schema).get("properties")
        unknown = [f"unknown field {name}" for name in body if name not in known] if known else []
        return [*unknown, *self._judge(schema, body)]

    def _judge(self, schema: dict[str, Any], value: Any) -> list[str]:
        validator = Draft202012Validator(_absolute(schema), registry=self.registry)
        return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            found: Any = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = found
        return node


def _absolute(schema: Any) -> Any:
    text = json.dumps(schema).replace('"$ref": "#/', '"$ref": "urn:doc#/')
    return json.loads(text)


def _read(kind: Any, text: str) -> Any:
    if kind == "array":
        return text.split(",")
    if kind == "integer":
        return int(text) if re.fullmatch(r"-?\d+", text) else text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text
