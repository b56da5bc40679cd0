"""Whatever stands in a file, reading it ends in a record or in a SpecError whose problems have a place and a fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import Problem, SpecError
from schemas.job import load_job
from schemas.spec_schema import SchemaName, list_properties, load_schema
from schemas.template import load_template
from schemas.yaml_source import parse_document
from tests.schemas.spec_files import JOB, TEMPLATE, write_job

BOUNDED = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
WORDS = [
    "a",
    "1",
    "- ",
    ": ",
    "\n",
    "  ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "'",
    '"',
    "#",
    "|",
    ">",
    "!",
    "%",
    "\t",
    "?",
    "~",
    "\\",
    "@",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "1e3", "-", "x" * 5000])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutations")
    write_job(folder)
    return folder


def find_problems(load: Any, path: Path) -> tuple[Problem, ...]:
    try:
        load(path)
    except SpecError as error:
        assert error.problems, "an error without problems says nothing"
        assert all(problem.message and problem.file for problem in error.problems)
        return error.problems
    return ()


@BOUNDED
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=30).map("".join))
def test_any_text_is_data_or_problems(text: str) -> None:
    loaded = parse_document(text.encode("utf-8", "replace").decode(), file="f")

    assert loaded.document is not None or loaded.problems


@BOUNDED
@given(content=st.binary(max_size=80))
def test_any_bytes_are_a_spec_error(folder: Path, content: bytes) -> None:
    path = folder / "bytes.yaml"
    path.write_bytes(content)

    assert find_problems(load_job, path)


@BOUNDED
@given(start=st.integers(0, len(JOB)), length=st.integers(0, 12), new=st.text(max_size=4) | st.sampled_from(WORDS))
def test_a_job_with_a_piece_cut_out_or_put_in_never_crashes(folder: Path, start: int, length: int, new: str) -> None:
    path = folder / "cut.yaml"
    path.write_text(JOB[:start] + new + JOB[start + length :], encoding="utf-8", errors="replace")

    for problem in find_problems(load_job, path):
        assert problem.line >= 0


@BOUNDED
@given(start=st.integers(0, len(TEMPLATE)), length=st.integers(0, 12), new=st.sampled_from(WORDS))
def test_a_template_with_a_piece_cut_out_or_put_in_never_crashes(
    folder: Path, start: int, length: int, new: str
) -> None:
    path = folder / "cut-template.yaml"
    path.write_text(TEMPLATE[:start] + new + TEMPLATE[start + length :])

    find_problems(load_template, path)


def put(data: Any, path: tuple[str, ...], value: Any) -> None:
    """Set what stands at path, making what leads there; a list is entered at its first item."""
    for key in path[:-1]:
        data = data[0] if isinstance(data, list) else data
        if not isinstance(data.get(key), dict | list):
            data[key] = {}
        data = data[key]
    (data[0] if isinstance(data, list) else data)[path[-1]] = value


def make_paths(name: SchemaName) -> list[tuple[str, ...]]:
    return [path for path, _ in list_properties(load_schema(name))]


@BOUNDED
@given(path=st.sampled_from(make_paths("job")), value=VALUES)
def test_any_value_anywhere_in_a_job_is_accepted_or_told_with_a_fix(
    folder: Path, path: tuple[str, ...], value: Any
) -> None:
    loaded = parse_document(JOB, file="f")
    assert loaded.document is not None
    data = json.loads(json.dumps(loaded.document.data))
    put(data, path, value)
    file = folder / "any.json"
    file.write_text(json.dumps(data, indent=1))

    for problem in find_problems(load_job, file):
        assert problem.fix or problem.code.startswith("yaml")


@BOUNDED
@given(path=st.sampled_from(make_paths("template")), value=VALUES)
def test_any_value_anywhere_in_a_template_is_accepted_or_told_with_a_fix(
    folder: Path, path: tuple[str, ...], value: Any
) -> None:
    loaded = parse_document(TEMPLATE, file="f")
    assert loaded.document is not None
    data = json.loads(json.dumps(loaded.document.data))
    put(data, path, value)
    file = folder / "any-template.json"
    file.write_text(json.dumps(data, indent=1))

    for problem in find_problems(load_template, file):
        assert problem.fix or problem.code.startswith("yaml")
