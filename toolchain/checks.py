"""Runs the project's own checks: ruff, mypy, pytest and the benchmark, as `./inv check`, `./inv test` and `./inv bench` do."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
# Most tests wait for processes, so there are more workers than cores. Unit tests wait for nothing, and each worker begins with
# three seconds of looking for tests.
_WORKERS = ["-n", "4"]
_UNIT_WORKERS = ["-n", "logical"]
# A file stays with one worker, so that what its tests share is made once. Files go out in the order of tests/conftest.py, the
# slow ones first, so that no worker is left alone with them at the end.
_ORDER = ["--dist", "loadfile", "--no-loadscope-reorder"]
# Failures, errors and tests that needed another try, by name; and why a test was skipped.
_REPORT = ["-rfERs"]


def run_tests(*, unit: bool, chaos: int, rest: str = "") -> int:
    """pytest over everything, or over the fast part; the exit code is pytest's."""
    workers = _UNIT_WORKERS if unit else _WORKERS
    arguments = [sys.executable, "-m", "pytest", "-q", *_REPORT, *workers, *_ORDER, *shlex.split(rest)]
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


def run_bench(*, full: bool, gates: bool, output: str) -> int:
    """The dispatcher beside other clients, or its gates; tables on stdout, figures in a JSON file."""
    arguments = [sys.executable, "-m", "benchmarks.gates" if gates else "benchmarks.side_by_side"]
    if full:
        arguments.append("--full")
    if output:
        arguments += ["--output", str(Path(output).resolve())]
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    sys.stderr.write(f"$ {shlex.join(arguments[1:])}\n")
    sys.stderr.flush()
    # Started in the background, a shell's children ignore SIGINT and hand that on; tests of Ctrl-C need it as it is elsewhere.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.call(arguments, cwd=_ROOT)
