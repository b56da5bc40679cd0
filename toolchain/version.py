"""Finds out which Leasehold this is, commit included where it runs from a checkout. Never fails; called by plans and displays."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from schemas.version import LeaseholdVersion

ROOT = Path(__file__).resolve().parents[1]
_GIT_TIMEOUT_S = 2.0


def find_version(root: Path = ROOT) -> LeaseholdVersion:
    """The installed version, and what git tells of the checkout at root within a moment."""
    commit = _ask_git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if not commit:
        return LeaseholdVersion(version=_read_installed())
    changes = _ask_git(root, "status", "--porcelain", "--untracked-files=no")
    return LeaseholdVersion(
        version=_read_installed(), commit=commit, is_changed=None if changes is None else bool(changes)
    )


def _read_installed() -> str:
    try:
        return importlib.metadata.version("leasehold")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _ask_git(root: Path, *words: str) -> str | None:
    """What git prints; None when there is no git, when it refuses, or when it takes too long."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_choose_environment(os.environ),
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def _choose_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what a git hook sets: it would lead to another repository."""
    return {name: value for name, value in environ.items() if not name.startswith("GIT_")}
