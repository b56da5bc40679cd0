"""Problems as annotations of a GitHub workflow, which shows each at its line of a pull request. Called by validation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from schemas.errors import Problem

Level = Literal["error", "warning"]


def render_annotation(problem: Problem, level: Level, *, root: Path) -> str:
    """`::error file=jobs/a.yaml,line=3,col=5,title=unknown_key::...`; files below root, the checkout, are named from there."""
    fields = {
        "file": _name_file(problem.file, root),
        "line": problem.line,
        "col": problem.column,
        "title": problem.code,
    }
    properties = ",".join(f"{key}={_escape_property(str(value))}" for key, value in fields.items() if value)
    text = f"{problem.message}\n{problem.fix}" if problem.fix else problem.message
    return f"::{level} {properties}::{_escape(text)}"


def _name_file(file: str, root: Path) -> str:
    path = Path(file).absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
