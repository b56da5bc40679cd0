"""Runs the project's own checks: ruff, mypy and pytest, as `./inv check` and `./inv test` do."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def run_tests(*, unit: bool, chaos: int, rest: str = "") -> int:
    """pytest over everything, or over the fast part; the exit code is pytest's."""
    arguments = [sys.executable, "-m", "pytest", "-q", *shlex.split(rest)]
    if unit:
        arguments += ["-m", "not wire and not engine and not chaos and not live"]
    if chaos:
        arguments += ["tests/chaos", "--chaos", str(chaos)]
    return _run(arguments)


def run_checks(*, fix: bool) -> int:
    """Format, lint and types; the first exit code that is not 0, after all have run."""
    mend = ["--fix"] if fix else []
    look = [] if fix else ["--check"]
    ruff = [sys.executable, "-m", "ruff"]
    codes = [
        _run([*ruff, "format", *look, "."]),
        _run([*ruff, "check", *mend, "."]),
        _run([sys.executable, "-m", "mypy"]),
    ]
    return next((code for code in codes if code), 0)


def _run(arguments: list[str]) -> int:
    sys.stderr.write(f"$ {shlex.join(arguments[1:])}\n")
    sys.stderr.flush()
    return subprocess.call(arguments, cwd=_ROOT)
