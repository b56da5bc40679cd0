"""docs/jobs.md: its tables are the schemas', its examples are files of jobs/, and every example is right."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import field_page
from schemas.field_page import PAGE, render_fields, update_page
from schemas.spec_schema import SchemaName, list_properties, load_schema
from schemas.template import find_template
from stacks.verbs.validation import report_problems
from tests.schemas.spec_files import PROJECT

TEXT = (PROJECT / PAGE).read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
JOB_SCHEMA = "# yaml-language-server: $schema=../schemas/job.schema.json\n"
TEMPLATE_SCHEMA = "# yaml-language-server: $schema=../../schemas/template.schema.json\n"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A copy of jobs/ in which the page's examples are written."""
    shutil.copytree(PROJECT / "jobs", tmp_path / "jobs")
    return tmp_path / "jobs"


def write_examples(jobs: Path) -> tuple[list[Path], list[Path]]:
    """Every example of the page as a file beside the others: jobs, and templates."""
    written: tuple[list[Path], list[Path]] = ([], [])
    for index, text in enumerate(EXAMPLES):
        is_template = text.startswith(TEMPLATE_SCHEMA)
        path = jobs / "examples" / f"{index}.yaml" if is_template else jobs / f"example-{index}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        written[is_template].append(path)
    return written


def test_the_page_is_current() -> None:
    assert update_page(TEXT, root=PROJECT) == TEXT, "./inv schema --page brings it up to date"


def test_a_field_that_is_new_would_make_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = copy.deepcopy(dict(load_schema("job")))
    schema["properties"]["colour"] = {"type": "string", "description": "Of the bill.", "examples": ["red"]}
    monkeypatch.setattr(field_page, "load_schema", lambda name: schema if name == "job" else load_schema(name))

    changed = update_page(TEXT, root=PROJECT)

    assert "| `colour` | Of the bill. | text; `red` |  |" in changed
    assert changed != TEXT


@pytest.mark.parametrize("name", ["job", "template"])
def test_every_field_is_in_the_tables_with_its_words(name: SchemaName) -> None:
    text = render_fields(name) + render_fields("template")

    missing = [
        path
        for path, each in list_properties(load_schema(name))
        if f"| `{path[-1]}` | {each['description']}" not in text
    ]
    assert missing == []


def test_every_example_begins_with_the_line_that_editors_read() -> None:
    assert len(EXAMPLES) >= 6
    assert [text for text in EXAMPLES if not text.startswith((JOB_SCHEMA, TEMPLATE_SCHEMA))] == []


def test_every_example_validates(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_jobs, as_templates = write_examples(jobs)

    code = report_problems([*as_jobs, *as_templates], os.environ, as_json=False)

    assert code == 0, capsys.readouterr().err
    assert as_jobs and as_templates


@pytest.mark.wire
def test_every_example_passes_the_checker_that_editors_and_hooks_use(jobs: Path) -> None:
    for paths, schema in zip(write_examples(jobs), ("job", "template"), strict=True):
        command = [Path(sys.executable).with_name("check-jsonschema"), "--schemafile"]
        command += [str(PROJECT / "schemas" / f"{schema}.schema.json"), *map(str, paths)]  # type: ignore[list-item]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        assert result.returncode == 0, result.stdout


def test_the_page_for_aibrix_users_names_every_field_of_a_template() -> None:
    text = (PROJECT / "docs" / "from-aibrix.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z_]+", text))
    fields = {path[-1] for path, _ in list_properties(load_schema("template")) if "engine_args" not in path[:-1]}

    assert fields - words - {"spec"} == set()


def test_the_templates_that_the_pages_name_are_there() -> None:
    for page in (TEXT, (PROJECT / "docs" / "from-aibrix.md").read_text(encoding="utf-8")):
        for reference in re.findall(r"^template: (\S+)$", page, re.MULTILINE):
            assert find_template(reference, [PROJECT / "jobs" / "templates"]).template is not None, reference
