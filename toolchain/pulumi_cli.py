"""Which Pulumi is used, in this order: one on PATH, one we installed earlier, the official release, a build of our own.

`./inv` installs it during set-up; the life cycle, `doctor` and `env` ask `find_pulumi` and `pulumi_environment`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toolchain.build import build_pulumi
from toolchain.cache import PULUMI_VERSION, fill_folder, find_cache_root, load_origin
from toolchain.child import run_child
from toolchain.download import RELEASES_URL, Unreachable, fetch_checksum, fetch_release, name_archive
from toolchain.failure import ToolchainError
from toolchain.lock import hold_lock
from toolchain.progress import Progress

OLDEST_PULUMI = (3, 200, 0)
COMMAND_PLUGIN_VERSION = "1.2.1"

_ROOT = Path(__file__).parents[1]
HOST_PYTHON = Path(__file__).with_name("language_host_python")
_STAND_IN = Path(__file__).parent / "command_plugin" / "bin"
_PLUGIN = "pulumi-resource-command"
_DO_IT_YOURSELF = "Install Pulumi 3.200 or newer yourself (https://www.pulumi.com/docs/install) and run ./inv again."
_ASK_TIMEOUT_S = 30.0
_PLUGIN_TIMEOUT_S = 120.0

Origin = Literal["path", "download", "built"]
Plugin = Literal["real", "stand-in"]


@dataclass(frozen=True, kw_only=True)
class Pulumi:
    """A Pulumi that can run the program: `bin_folders` go first on PATH, in this order."""

    executable: Path
    version: str
    origin: Origin
    plugin: Plugin
    bin_folders: tuple[Path, ...]

    def __str__(self) -> str:
        origins = {"path": "found on PATH", "download": "the official release", "built": "built from its Go modules"}
        plugins = {"real": "real", "stand-in": "our stand-in"}
        how = f"{origins[self.origin]}; command plugin: {plugins[self.plugin]}"
        return f"Pulumi {self.version} ({how}) at {self.executable}"


def find_pulumi(environ: Mapping[str, str] = os.environ) -> Pulumi | None:
    """Look on PATH, then in our cache; nothing is installed and no network is used."""
    cache_root = find_cache_root(environ)
    return _find_on_path(environ, cache_root) or _find_in_cache(environ, cache_root)


def install_pulumi(
    progress: Progress, environ: Mapping[str, str] = os.environ, *, releases_url: str = RELEASES_URL
) -> Pulumi:
    """Return what `find_pulumi` finds, or else download or build it into the cache; one process at a time."""
    cache_root = find_cache_root(environ)
    with hold_lock(cache_root / ".lock", progress.say):
        pulumi = find_pulumi(environ)
        if pulumi is None:
            _fill_cache(cache_root, progress, releases_url)
            pulumi = find_pulumi(environ)
        if pulumi is None:
            raise ToolchainError(f"the Pulumi that was just installed in {cache_root} does not start")
        if pulumi.plugin == "stand-in" and pulumi.origin != "built":
            _try_real_plugin(pulumi, environ, progress)
    return find_pulumi(environ) or pulumi


def pulumi_environment(pulumi: Pulumi, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what has to be set for `pulumi` to run the program; everything else may stay as it is.

    `.venv/bin` comes first because an old language host takes its Python from PATH.
    """
    ours = [_ROOT / ".venv" / "bin", *pulumi.bin_folders]
    others = [part for part in environ.get("PATH", os.defpath).split(os.pathsep) if Path(part) not in ours]
    variables = {"PATH": os.pathsep.join([*map(str, ours), *others]), "PULUMI_SKIP_UPDATE_CHECK": "1"}
    if pulumi.plugin == "stand-in":
        variables["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "1"
    return variables


def _find_on_path(environ: Mapping[str, str], cache_root: Path) -> Pulumi | None:
    """Find a `pulumi` that is somebody else's; after `eval "$(./inv env)"` ours is on PATH too."""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not Path(folder).is_relative_to(cache_root))
    executable = shutil.which("pulumi", path=path)
    if executable is None:
        return None
    beside = Path(executable).resolve().parent
    if shutil.which("pulumi-language-python", path=os.pathsep.join([path, str(beside)])) is None:
        return None
    version = _ask_version(executable)
    if version is None or _parse_version(version) < OLDEST_PULUMI:
        return None
    return _make_pulumi(Path(executable), version, "path", _find_plugin(environ, path))


def _find_in_cache(environ: Mapping[str, str], cache_root: Path) -> Pulumi | None:
    folder = cache_root / PULUMI_VERSION
    executable = folder / "bin" / "pulumi"
    plugin = _find_plugin(environ, environ.get("PATH"))
    match load_origin(folder):
        case "download":
            return _make_pulumi(executable, PULUMI_VERSION, "download", plugin)
        case "built":
            return _make_pulumi(executable, PULUMI_VERSION, "built", plugin)
        case _:
            return None


def _make_pulumi(executable: Path, version: str, origin: Origin, plugin: Plugin) -> Pulumi:
    stand_in = (_STAND_IN,) if plugin == "stand-in" else ()
    return Pulumi(
        executable=executable,
        version=version,
        origin=origin,
        plugin=plugin,
        bin_folders=(*stand_in, executable.parent),
    )


def _find_plugin(environ: Mapping[str, str], path: str | None) -> Plugin:
    """Look where the engine looks for the real plugin: its own folder, then PATH."""
    home = Path(environ.get("PULUMI_HOME") or Path(environ.get("HOME") or Path.home(), ".pulumi"))
    if any((home / "plugins").glob(f"resource-command-v{COMMAND_PLUGIN_VERSION}/{_PLUGIN}")):
        return "real"
    found = shutil.which(_PLUGIN, path=path)
    return "real" if found and Path(found).parent != _STAND_IN else "stand-in"


def _try_real_plugin(pulumi: Pulumi, environ: Mapping[str, str], progress: Progress) -> None:
    """Let Pulumi download its command plugin; where that is impossible the stand-in does its work."""
    argv: list[str | Path] = [pulumi.executable, "plugin", "install", "resource", "command", COMMAND_PLUGIN_VERSION]
    try:
        with progress.step(f"installing Pulumi's command plugin {COMMAND_PLUGIN_VERSION}"):
            run_child(argv, timeout_s=_PLUGIN_TIMEOUT_S, env={**environ, "PULUMI_SKIP_UPDATE_CHECK": "1"})
    except ToolchainError:
        progress.say("the command plugin cannot be downloaded from here; using the stand-in that comes with Leasehold")


def _fill_cache(cache_root: Path, progress: Progress, releases_url: str) -> None:
    folder = cache_root / PULUMI_VERSION
    try:
        archive = name_archive()
        checksum = fetch_checksum(releases_url, archive)
        with fill_folder(folder, "download") as bin_folder, progress.step(f"downloading Pulumi {PULUMI_VERSION}"):
            fetch_release(releases_url, archive, checksum, bin_folder)
    except Unreachable as error:
        progress.say(f"Pulumi's release cannot be downloaded ({error}); building it from its Go modules instead")
        _build_into_cache(folder, progress)


def _build_into_cache(folder: Path, progress: Progress) -> None:
    try:
        with fill_folder(folder, "built") as bin_folder:
            build_pulumi(bin_folder, progress)
    except ToolchainError as error:
        raise ToolchainError(f"Pulumi could not be built: {error}\n{_DO_IT_YOURSELF}") from error


def _ask_version(executable: str) -> str | None:
    env = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"}
    try:
        answer = subprocess.run(
            [executable, "version"], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, env=env, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\d+\.\d+\.\d+", answer.stdout)
    return match.group() if answer.returncode == 0 and match else None


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
