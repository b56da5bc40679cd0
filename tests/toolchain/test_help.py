"""`./inv TASK --help` tells what each flag is for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FLAG = re.compile(r"^ *(-\w( \w+)?, )?--\S+ ")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["run", "release", "dispatch"])
def test_help_of_a_task_shows_a_text_for_every_flag(name: str) -> None:
    command = [sys.executable, "-P", str(ROOT / "toolchain" / "command_line.py"), name, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=30)

    lines = [line for line in shown.stdout.partition("Flags:")[2].splitlines() if line.strip().startswith("-")]
    assert shown.returncode == 0
    assert lines
    assert [line for line in lines if len(FLAG.sub("", line).split()) < 2] == []
