"""Whether .venv, its packages and Pulumi are what this checkout needs: `./inv` asks at each start, so little is imported here.

`python toolchain/installed.py [what was typed]` ends with 0 when nothing has to be done; bootstrap does what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "leasehold.json"
PULUMI = VENV / "leasehold-pulumi.json"
REQUIREMENTS = ROOT / "toolchain" / "requirements.lock"

# Listing, checking and reading need no Pulumi, and should not wait minutes for one to be built.
PULUMI_TASKS = frozenset({"demo", "run", "resume", "retry", "cancel", "release", "env", "test", "bench"})


def is_current(arguments: list[str]) -> bool:
    """Say whether nothing has to be done; the caller is the Python of .venv."""
    try:
        if read_json(STAMP) != make_stamp(sys.version.split()[0]):
            return False
    except OSError:
        return False
    return not needs_pulumi(arguments) or os.access(str(read_json(PULUMI).get("executable", "")), os.X_OK)


def needs_pulumi(arguments: list[str]) -> bool:
    if {"-h", "--help"} & set(arguments):
        return False
    task = next((argument for argument in arguments if not argument.startswith("-")), "")
    return task in PULUMI_TASKS


def make_stamp(python_version: str) -> dict[str, object]:
    """Return what .venv depends on; it also holds absolute paths, so a moved checkout makes a new one. Raises OSError."""
    digest = hashlib.sha256()
    for path in (REQUIREMENTS, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes() + b"\0")
    return {"version": 1, "root": str(ROOT), "python": python_version, "packages": digest.hexdigest()}


def read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


if __name__ == "__main__":
    sys.exit(0 if is_current(sys.argv[1:]) else 1)
