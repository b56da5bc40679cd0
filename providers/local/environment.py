"""The environment of everything that runs on a local machine: made from nothing, so that no secret of the process that
launched it can leak. Called by the launcher, the keeper and every SSH session."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from providers.local.folder import MachineSpec
from providers.local.processes import MARK_FOLDER, MARK_ID, MARK_NAME

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def make_environment(folder: Path, spec: MachineSpec, *, user: str = "root") -> dict[str, str]:
    """What a session of this user sees, and nothing more."""
    return {
        "HOME": str(folder / "home"),
        "USER": user,
        "LOGNAME": user,
        "SHELL": find_shell(),
        "PATH": ":".join([*spec.shims, str(folder / "bin"), spec.search_path]),
        "LANG": "C.UTF-8",
        MARK_ID: spec.id,
        MARK_NAME: spec.name,
        MARK_FOLDER: str(folder),
    }


def make_keeper_environment(folder: Path, spec: MachineSpec) -> dict[str, str]:
    """What the machine's own process sees: it must also import this project, installed or not."""
    return make_environment(folder, spec) | {"PYTHONPATH": str(PROJECT_ROOT)}


def find_shell() -> str:
    """The login shell of the user that runs the machine, else /bin/sh."""
    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        shell = ""
    return shell if os.access(shell, os.X_OK) else "/bin/sh"
