from __future__ import annotations

import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from ruamel.yaml import YAML

from schemas.job import Candidate, CloudName, Dispatch, Limits, Machines, load_job
from schemas.spec_schema import SchemaName, list_properties, load_schema, render_schema
from schemas.template import (
    Accelerator,
    EngineSpec,
    ModelSource,
    Parallelism,
    Quantization,
    ServedEndpoint,
    TemplateSpec,
    load_template,
)
from tests.schemas.spec_files import PROJECT

SCHEMAS = PROJECT / "schemas"
JOBS = sorted((PROJECT / "jobs").glob("*.yaml"))
TEMPLATES = sorted((PROJECT / "jobs" / "templates").glob("*.yaml"))
NAMES: list[SchemaName] = ["job", "template"]
# What yaml-language-server and check-jsonschema both understand.
KEYWORDS = {
    "$schema", "$defs", "$ref", "title", "description", "type", "properties", "additionalProperties", "required",
    "propertyNames", "items", "minItems", "maxItems", "uniqueItems", "enum", "const", "pattern", "minLength", "maxLength",
    "minimum", "maximum", "exclusiveMinimum", "maxProperties", "oneOf", "not", "default", "examples", "writeOnly",
    "patternErrorMessage", "x-not-supported-yet",
}  # fmt: skip


def run_check_jsonschema(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("check-jsonschema"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def list_keywords(schema: Any) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for key in ("properties", "$defs"):
        found.update(*(list_keywords(each) for each in schema.get(key, {}).values()))
    for key in ("items", "additionalProperties", "propertyNames"):
        found |= list_keywords(schema.get(key))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_is_valid_and_uses_only_what_editors_understand(name: SchemaName) -> None:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())

    jsonschema.Draft202012Validator.check_schema(schema)
    assert list_keywords(schema) <= KEYWORDS


@pytest.mark.parametrize("name", NAMES)
def test_every_property_is_described_with_examples_that_fit(name: SchemaName) -> None:
    schema = load_schema(name)
    bare = [path for path, each in list_properties(schema) if not each.get("description") or not each.get("examples")]
    wrong = [
        (path, example)
        for path, each in list_properties(schema)
        for example in each["examples"]
        if not jsonschema.Draft202012Validator({**each, "$defs": schema["$defs"]}).is_valid(example)
    ]

    assert bare == []
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_every_pattern_has_words_of_its_own(name: SchemaName) -> None:
    assert [
        path
        for path, each in list_properties(load_schema(name))
        if "pattern" in each and "patternErrorMessage" not in each
    ] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_schema_needs_no_second_file(name: SchemaName) -> None:
    text = render_schema(name)

    assert "template.schema.json" not in text
    jsonschema.Draft202012Validator(json.loads(text)).is_valid({})


RECORDS: list[tuple[SchemaName, tuple[str, ...], type, dict[str, str]]] = [
    ("job", ("machines",), Machines, {}),
    ("job", ("machines", "candidates"), Candidate, {"any": "min_gb"}),
    ("job", ("limits",), Limits, {}),
    ("job", ("dispatch",), Dispatch, {}),
    ("template", ("spec",), TemplateSpec, {}),
    ("template", ("spec", "engine"), EngineSpec, {"ready_timeout_seconds": "ready_timeout_s"}),
    ("template", ("spec", "model_source"), ModelSource, {}),
    ("template", ("spec", "accelerator"), Accelerator, {}),
    ("template", ("spec", "parallelism"), Parallelism, {}),
    ("template", ("spec", "quantization"), Quantization, {}),
]


@pytest.mark.parametrize(("name", "path", "record", "renamed"), RECORDS, ids=[each[2].__name__ for each in RECORDS])
def test_record_and_schema_have_the_same_fields_choices_and_defaults(
    name: SchemaName, path: tuple[str, ...], record: type, renamed: dict[str, str]
) -> None:
    properties = {each[-1]: schema for each, schema in list_properties(load_schema(name)) if each[:-1] == path}
    hints = typing.get_type_hints(record)
    from_template = {"interconnect", "sku_hint"} if record is Candidate else set()

    assert {renamed.get(key, key) for key in properties} == set(hints) - from_template
    for key, schema in properties.items():
        field = renamed.get(key, key)
        default = next(each.default for each in msgspec.structs.fields(record) if each.name == field)
        if "enum" in schema and "type" not in schema:
            assert set(schema["enum"]) == set(get_args(hints[field])) - {""}, key
        if "default" in schema:
            assert default == {"auto": 0}.get(schema["default"], schema["default"]), key


def test_endpoints_and_clouds_are_the_same_in_schema_and_records() -> None:
    found = dict(list_properties(load_schema("job")))

    assert set(found[("endpoint",)]["enum"]) == set(get_args(ServedEndpoint))
    assert found[("machines", "candidates", "cloud")]["enum"] == list(get_args(CloudName))


@pytest.mark.parametrize("path", [*JOBS, *TEMPLATES], ids=lambda path: path.stem)
def test_every_example_names_the_schema_that_it_keeps_to(path: Path) -> None:
    first, text = path.read_text().split("\n", 1)
    start = "# yaml-language-server: $schema="
    schema = (path.parent / first.removeprefix(start)).resolve()

    assert first.startswith(start)
    assert schema == SCHEMAS / ("template.schema.json" if path in TEMPLATES else "job.schema.json")
    assert YAML(typ="safe", pure=True).load(text)


@pytest.mark.wire
def test_the_examples_pass_the_checker_that_editors_and_hooks_use() -> None:
    jobs = run_check_jsonschema("--schemafile", SCHEMAS / "job.schema.json", *JOBS)
    templates = run_check_jsonschema("--schemafile", SCHEMAS / "template.schema.json", *TEMPLATES)

    assert (jobs.returncode, templates.returncode) == (0, 0), jobs.stdout + templates.stdout


@pytest.mark.wire
def test_that_checker_refuses_what_we_refuse(tmp_path: Path) -> None:
    job = (PROJECT / "jobs" / "demo.yaml").read_text()
    wrong = [
        ("name: demo", "name: Demo"),
        ("replicas: 2\n", "replica: 2\n"),
        ("template: tiny", "deploy: {}\ntemplate: tiny"),
    ]
    for index, (old, new) in enumerate(wrong):
        (tmp_path / f"{index}.yaml").write_text(job.replace(old, new, 1))

    results = [run_check_jsonschema("--schemafile", SCHEMAS / "job.schema.json", path) for path in tmp_path.iterdir()]

    assert [result.returncode for result in results] == [1, 1, 1]


@pytest.mark.wire
def test_the_schemas_keep_to_the_metaschema_for_that_checker() -> None:
    result = run_check_jsonschema("--check-metaschema", *SCHEMAS.glob("*.schema.json"))

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_example_job_loads_without_warnings(path: Path) -> None:
    assert load_job(path).warnings == ()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_example_template_loads(path: Path) -> None:
    assert load_template(path).name == path.stem


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_example_asks_for_the_model_that_its_template_serves(path: Path) -> None:
    loaded = load_job(path)
    with Path(loaded.job.input).open("rb") as lines:
        models = {json.loads(line)["body"]["model"] for line in lines}

    assert models == {loaded.template.model}
