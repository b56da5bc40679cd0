"""Who is compared with the dispatcher, and the command that runs each. Used by benchmarks.side_by_side."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.workload import ENDPOINT, ROOT, dispatcher_command, write_manifest
from runtime.dispatcher.manifest import DispatchOptions

INSTALL_TIMEOUT_S = 300
_CLIENTS = ROOT / "benchmarks" / "clients"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one run is to do; results go to `folder`, which is new."""

    url: str
    source: Path
    folder: Path
    lines: int
    in_flight: int


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """make_command prepares a run and says how to start it. is_slow: gets a part of the lines, or it would take all day."""

    name: str
    make_command: Callable[[Task], list[str]]
    is_slow: bool = False


def make_dispatcher_command(task: Task) -> list[str]:
    options = DispatchOptions(max_concurrency=task.in_flight, line_limit=task.lines)
    return dispatcher_command(write_manifest(task.folder, task.source, task.url, options=options))


def make_aiohttp_dispatcher_command(task: Task) -> list[str]:
    """The dispatcher without its own HTTP: a URL with a user in it goes through aiohttp."""
    return make_dispatcher_command(msgspec.structs.replace(task, url=task.url.replace("http://", "http://user@", 1)))


def make_bare_command(task: Task) -> list[str]:
    script = str(_CLIENTS / "bare_aiohttp.py")
    return [sys.executable, script, task.url + ENDPOINT, str(task.lines), str(task.in_flight)]


def make_httpx_command(task: Task) -> list[str]:
    return [sys.executable, str(_CLIENTS / "httpx_gather.py"), task.url + ENDPOINT, *_files(task)]


def make_openai_command(python: Path) -> Callable[[Task], list[str]]:
    return lambda task: [str(python), str(_CLIENTS / "openai_gather.py"), task.url + "/v1", *_files(task)]


def install_openai(folder: Path) -> Path:
    """A venv with the openai client; returns its Python. Raises OSError or subprocess.SubprocessError with the reason."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "openai"]
    subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S, capture_output=True)
    return python


def _files(task: Task) -> list[str]:
    task.folder.mkdir(parents=True, exist_ok=True)
    return [str(task.source), str(task.folder / "answers.jsonl"), str(task.lines), str(task.in_flight)]
