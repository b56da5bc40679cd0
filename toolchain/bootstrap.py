"""Make .venv and install the packages, and Pulumi for the tasks that need it; `./inv` calls it with any Python >= 3.11.

A stamp is written at the very end, so an interrupted set-up is never taken for a finished one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolchain.bootstrap_check import check_jobs  # noqa: E402
from toolchain.child import ChildFailed, run_child  # noqa: E402
from toolchain.failure import ToolchainError  # noqa: E402
from toolchain.installed import PULUMI, REQUIREMENTS, STAMP, VENV, make_stamp, needs_pulumi, read_json  # noqa: E402
from toolchain.lock import hold_lock  # noqa: E402
from toolchain.progress import Progress  # noqa: E402
from toolchain.pulumi_cli import Pulumi, install_pulumi  # noqa: E402

_PYTHON = VENV / "bin" / "python"
_LOCK_FILE = ROOT / ".leasehold" / "setup.lock"
_INSTALL_TIMEOUT_S = 1800.0
_NO_NETWORK = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "Network is unreachable", "ProxyError")


def main(arguments: list[str]) -> int:
    progress = Progress()
    try:
        with hold_lock(_LOCK_FILE, progress.say):
            return set_up(arguments, progress)
    except ToolchainError as error:
        sys.stderr.write(f"inv: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninv: set-up interrupted; the next ./inv starts it again\n")
        return 130


def set_up(arguments: list[str], progress: Progress) -> int:
    """Do what is missing; somebody else may have done it while we waited for the lock. Not 0: a job is not in order."""
    version = _ask_venv_version()
    if version is None or read_json(STAMP) != _make_stamp(version):
        _install_packages(version, progress)
    if not needs_pulumi(arguments):
        return 0
    code = check_jobs(_PYTHON, ROOT / "toolchain" / "command_line.py", arguments)
    if code == 0:
        pulumi = install_pulumi(progress)
        progress.say(f"using {pulumi}")
        _write_json(PULUMI, _make_record(pulumi))
    return code


def _install_packages(version: str | None, progress: Progress) -> None:
    STAMP.unlink(missing_ok=True)
    if version is None:
        with progress.step(f"making .venv with Python {sys.version.split()[0]}"):
            run_child([sys.executable, "-m", "venv", "--clear", VENV], timeout_s=_INSTALL_TIMEOUT_S)
    with progress.step("installing the packages of requirements.lock (1 to 2 minutes)"):
        _pip("-r", REQUIREMENTS)
    with progress.step("installing Leasehold itself (editable)"):
        _pip("--no-deps", "--no-build-isolation", "-e", ROOT)
    installed = _ask_venv_version()
    if installed is None:
        raise ToolchainError(f"{_PYTHON} does not start; remove {VENV} and run ./inv again")
    _write_json(STAMP, _make_stamp(installed))


def _make_stamp(python_version: str) -> dict[str, object]:
    try:
        return make_stamp(python_version)
    except OSError as error:
        raise ToolchainError(
            f"{error.filename} cannot be read ({error.strerror}); is the checkout complete?"
        ) from error


def _ask_venv_version() -> str | None:
    """Return the version of a usable .venv of this checkout: its Python starts, is new enough, and has pip."""
    ask = "import sys, pip; assert sys.version_info >= (3, 11); print(sys.prefix, sys.version.split()[0], sep='\\n')"
    if not os.access(_PYTHON, os.X_OK):
        return None
    try:
        prefix, version = run_child([_PYTHON, "-I", "-c", ask], timeout_s=60).split("\n")[:2]
    except (ToolchainError, ValueError):
        return None
    return version if Path(prefix) == VENV and _was_made_here() else None


def _was_made_here() -> bool:
    """Look at a script's head: a venv that was copied or moved still names its old place there, in the first line or,
    for a path with blanks or a long one, in the second."""
    try:
        with (VENV / "bin" / "pip").open() as script:
            return str(VENV) in script.read(4096)
    except OSError:
        return False


def _pip(*arguments: str | Path) -> None:
    argv = [_PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        run_child(argv, timeout_s=_INSTALL_TIMEOUT_S)
    except ChildFailed as error:
        if any(sign in error.output for sign in _NO_NETWORK):
            raise ToolchainError(
                f"{error}\nThe package index cannot be reached: check the network, the proxy or PIP_INDEX_URL,"
                " then run ./inv again."
            ) from error
        raise


def _make_record(pulumi: Pulumi) -> dict[str, object]:
    return {
        "version": 1,
        "executable": str(pulumi.executable),
        "pulumi": pulumi.version,
        "origin": pulumi.origin,
        "plugin": pulumi.plugin,
    }


def _write_json(path: Path, value: dict[str, object]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value) + "\n")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
