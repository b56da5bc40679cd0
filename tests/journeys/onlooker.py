"""Looks at everything that anybody on this computer could read while a run goes on: command lines and Pulumi's state."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import psutil

_EVERY_S = 0.05


class Onlooker:
    """`with Onlooker(state) as seen:`; afterwards, every command line and every version of a state file that there was."""

    def __init__(self, state: Path) -> None:
        self.command_lines: set[str] = set()
        self.states: dict[tuple[str, int], str] = {}
        self._state = state
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="onlooker")

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            for pid in psutil.pids():
                with contextlib.suppress(psutil.Error, OSError):
                    self.command_lines.add("\0".join(psutil.Process(pid).cmdline()))
            for path in self._state.rglob("*.json*"):
                with contextlib.suppress(OSError):
                    key = (str(path), path.stat().st_mtime_ns)
                    if key not in self.states:
                        self.states[key] = path.read_text(errors="replace")


def find_secrets(secrets: dict[str, str], texts: Iterable[tuple[str, str]]) -> list[str]:
    """`<secret> in <place>` for every secret that stands in a text, as it is or in base64; texts are (place, text)."""
    forms = {name: (secret, base64.b64encode(secret.encode()).decode()[:-4]) for name, secret in secrets.items()}
    return [
        f"{name} in {place}"
        for place, text in texts
        for name, written in forms.items()
        if any(form in text for form in written)
    ]


def read_unique_line(key_file: Path) -> str:
    """The line of a private key that no other key has; the first ones are the same in all of them."""
    return key_file.read_text().splitlines()[2]


def read_files(folder: Path, *, but: Iterable[Path]) -> Iterable[tuple[str, str]]:
    """Every file below a folder as (path, text), except some files and what is in some folders."""
    left_out = tuple(but)
    for path in folder.rglob("*"):
        if path.is_file() and not any(each == path or each in path.parents for each in left_out):
            yield str(path.relative_to(folder)), path.read_text(errors="replace")
