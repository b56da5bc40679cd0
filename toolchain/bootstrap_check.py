"""Checks the jobs that were typed before minutes go into building Pulumi for them. Called by bootstrap, once .venv is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_TASKS = frozenset({"run", "resume", "retry"})
_SUFFIXES = (".yaml", ".yml", ".json")
_TIMEOUT_S = 600.0


def find_jobs(arguments: Sequence[str]) -> list[str]:
    """The job files of a command line, told by how they end: nothing here knows which flags take values."""
    task = next((word for word in arguments if not word.startswith("-")), "")
    words = [word.partition("=")[2] if word.startswith("--job=") else word for word in arguments]
    return [word for word in words if not word.startswith("-") and word.endswith(_SUFFIXES)] if task in _TASKS else []


def check_jobs(python: Path, command_line: Path, arguments: Sequence[str]) -> int:
    """0 when the jobs are in order or there are none, else what `validate` ends with, which has said why on stderr."""
    jobs = find_jobs(arguments)
    if not jobs:
        return 0
    argv = [str(python), "-P", str(command_line), "validate", *jobs]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        # The run itself checks again, and says what is wrong.
        return 0
    if done.returncode:
        sys.stderr.write(done.stderr.decode("utf-8", "replace"))
    return done.returncode
