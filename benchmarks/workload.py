"""What every benchmark and gate needs: an input file, stub engines in processes of their own, manifests, a measured process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from runtime.dispatcher.manifest import DispatchOptions, Manifest

ROOT = Path(__file__).resolve().parents[1]
ENDPOINT = "/v1/chat/completions"
STUB_CORE, CLIENT_CORE = 0, 1


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One process from start to end."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def write_input(path: Path, lines: int, *, padding: int = 830) -> None:
    """Requests of about 1 kB each."""
    text = "x" * padding
    with path.open("w") as file:
        for number in range(lines):
            body = {"model": "tiny", "messages": [{"role": "user", "content": f"{number} {text}"}], "max_tokens": 64}
            line = {"custom_id": f"request-{number:09d}", "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def serve_stub(**options: Any) -> Iterator[str]:
    """A stub engine on the other core; gives its base URL."""
    flags = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in options.items()]
    command = [sys.executable, str(ROOT / "tests" / "runtime" / "stub_engine.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin_to(STUB_CORE)) as stub:
        assert stub.stdout is not None
        try:
            yield stub.stdout.readline().strip()
        finally:
            stub.kill()


def write_manifest(
    folder: Path, source: Path, *base_urls: str, run: str = "bench", options: DispatchOptions | None = None
) -> Path:
    """A manifest for a dispatcher whose results go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        run=run,
        input=str(source),
        output_dir=str(folder),
        endpoint=ENDPOINT,
        model="tiny",
        base_urls=base_urls,
        options=options or DispatchOptions(),
    )
    path = folder / "manifest.json"
    path.write_bytes(msgspec.json.encode(manifest))
    return path


def dispatcher_command(manifest: Path) -> list[str]:
    return [sys.executable, "-m", "runtime.dispatcher", str(manifest)]


def start(command: list[str], *, log: Path | None = None, core: int = CLIENT_CORE) -> subprocess.Popen[bytes]:
    with (log or Path(os.devnull)).open("ab") as errors:
        return subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=errors, preexec_fn=pin_to(core)
        )


def measure(command: list[str], *, log: Path | None = None) -> Measurement:
    """Run it on a core of its own; raises RuntimeError when it fails."""
    began = time.monotonic()
    process = start(command, log=log)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(command)}")
    return Measurement(
        wall_s=time.monotonic() - began, cpu_s=usage.ru_utime + usage.ru_stime, peak_mb=usage.ru_maxrss / 1024
    )


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()


def pin_to(core: int) -> Callable[[], None]:
    """For a child before it starts: the core it runs on, where the system can do that."""

    def pin() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    return pin
