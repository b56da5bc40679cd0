"""The documents speak of what is there: tasks, files, links, exit codes, state names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from invoke.collection import Collection

import tasks as task_module
from schemas import errors

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
NOT_YET = {"serve"}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def list_tasks() -> dict[str, set[str]]:
    """Every task with its long flags."""
    contexts = Collection.from_module(task_module).to_contexts()
    return {
        context.name: {flag for flag in context.flags if flag.startswith("--")} for context in contexts if context.name
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_exists_with_its_flags(path: Path) -> None:
    tasks = list_tasks()
    commands = re.findall(r"\./inv ((?:[^`\n#\"|;)&]|\$\()+)", read(path))

    for command in commands:
        name, *words = shlex.split(command, posix=False) or [""]
        if name.startswith(("-", "TASK")):
            continue
        name = name.rstrip(".,:")
        assert name in tasks, f"{path.name} speaks of ./inv {name}"
        flags = {word.split("=")[0].rstrip(".,)") for word in words if word.startswith("--") and len(word) > 2}
        assert flags <= tasks[name], f"{path.name}: ./inv {command}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", read(path)):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_task_is_named_in_the_readme_or_the_command_page() -> None:
    text = read(ROOT / "README.md") + read(ROOT / "docs" / "commands.md")

    assert [name for name in list_tasks() if f"./inv {name}" not in text] == []


def test_the_readme_lists_the_exit_codes_of_the_error_tree() -> None:
    listed = {int(code) for code in re.findall(r"(?:^|· )(\d+) [a-z]", read(ROOT / "README.md"), re.MULTILINE)}
    owned = {
        value.exit_code for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "exit_code")
    }

    assert owned | {0} == listed


def test_what_is_not_there_yet_is_not_a_task() -> None:
    assert set() == NOT_YET & set(list_tasks())


def test_jobs_in_the_documents_are_files_that_exist() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"\bjobs/[\w./-]+\.(?:yaml|jsonl)\b", read(path)):
            assert (ROOT / name).exists(), f"{path.name} speaks of {name}"
