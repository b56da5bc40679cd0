"""Where a Pulumi that we installed lives, outside the checkout: `bin/` and `made.json`, complete or not there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PULUMI_VERSION = "3.259.0"

EXECUTABLES = (
    "pulumi",
    "pulumi-language-python",
    "pulumi-language-python-exec",
    "pulumi-resource-pulumi-python",
)
_MADE = "made.json"
_UNFINISHED = ".unfinished-"


def find_cache_root(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home(), ".cache")
    return Path(base, "leasehold", "toolchain")


def load_origin(folder: Path) -> str | None:
    """Return how the Pulumi in `folder` was made, or None when it is missing or incomplete."""
    try:
        origin = json.loads((folder / _MADE).read_text())["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = all(os.access(folder / "bin" / name, os.X_OK) for name in EXECUTABLES)
    return str(origin) if complete else None


@contextmanager
def fill_folder(folder: Path, origin: str) -> Iterator[Path]:
    """Give a temporary `bin/` to fill; only when the block succeeds and nothing is missing does it become `folder`.

    Call it under the lock: it also removes what an interrupted earlier attempt has left.
    """
    for left_over in folder.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        (work / "bin").mkdir()
        yield work / "bin"
        (work / _MADE).write_text(json.dumps({"version": 1, "pulumi": PULUMI_VERSION, "origin": origin}) + "\n")
        if load_origin(work) is None:
            raise RuntimeError(f"{work} lacks one of {', '.join(EXECUTABLES)}")
        work.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
