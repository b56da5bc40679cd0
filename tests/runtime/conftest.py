"""A bench for the dispatcher: stub engines in a thread of their own, input files, manifests, and results read back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.dispatcher.dispatcher import run_dispatcher
from runtime.dispatcher.manifest import DispatchOptions, Manifest
from schemas.status import Progress
from tests.runtime.stub_engine import StubEngine

ENDPOINT = "/v1/chat/completions"
DEADLINE_S = 20.0


def make_line(custom_id: object, **body: Any) -> bytes:
    full = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8} | body
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": full}).encode()


def wait_until(holds: Callable[[], object], *, timeout_s: float = DEADLINE_S, what: str = "") -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what or holds}"
        time.sleep(0.01)


class Results:
    """What a dispatcher left in its folder; reading it checks that every line is whole and no id is there twice."""

    def __init__(self, folder: Path) -> None:
        self.output = self._read(folder, "output.jsonl")
        self.error = self._read(folder, "error.jsonl")
        self.progress = msgspec.json.decode((folder / "progress.json").read_bytes(), type=Progress)
        assert not self.output.keys() & self.error.keys()

    @property
    def ids(self) -> set[str]:
        return self.output.keys() | self.error.keys()

    def _read(self, folder: Path, name: str) -> dict[str, Any]:
        final, part = folder / name, folder / f"{name}.part"
        path = final if final.exists() else part
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        assert lines.pop() == b""
        results = [json.loads(line) for line in lines]
        by_id = {result["custom_id"]: result for result in results}
        assert len(by_id) == len(results)
        return by_id


class Bench:
    """One output folder and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "run"
        self.input = folder / "input.jsonl"
        self.machines = folder / "machines"
        self.sockets = Path(tempfile.mkdtemp(prefix="lh-"))
        self._processes: list[subprocess.Popen[bytes]] = []

    def write_input(self, lines: Sequence[bytes]) -> None:
        self.input.write_bytes(b"\n".join(lines) + b"\n")

    def write_requests(self, count: int, faults: Callable[[int], Sequence[str]] = lambda _number: ()) -> set[str]:
        """Requests r0, r1, ...; each with the faults of its number."""
        lines = []
        for number in range(count):
            asked = list(faults(number))
            lines.append(make_line(f"r{number}", **({"faults": asked} if asked else {})))
        self.write_input(lines)
        return {f"r{number}" for number in range(count)}

    def make_manifest(self, *base_urls: str, options: DispatchOptions | None = None, **fields: Any) -> Manifest:
        values: dict[str, Any] = {
            "run": "run-1",
            "input": str(self.input),
            "output_dir": str(self.output),
            "endpoint": ENDPOINT,
            "model": "tiny",
            "options": options or DispatchOptions(),
            "base_urls": base_urls,
            "machines_dir": str(self.machines),
            "socket_dir": str(self.sockets),
        }
        return Manifest(**(values | fields))

    def run(self, *base_urls: str, code: int = 0, **fields: Any) -> Results:
        """Run a dispatcher in this process to its end."""
        assert run_dispatcher(self.make_manifest(*base_urls, **fields)) == code
        return Results(self.output)

    def start(self, *base_urls: str, **fields: Any) -> subprocess.Popen[bytes]:
        """Start a dispatcher as a process; it is ended with the test."""
        self.write_manifest(*base_urls, **fields)
        self.output.mkdir(exist_ok=True)
        with (self.folder / "dispatch.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "runtime.dispatcher", str(self.manifest_path)],
                stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            )  # fmt: skip
        self._processes.append(process)
        return process

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def write_manifest(self, *base_urls: str, **fields: Any) -> Path:
        self.manifest_path.write_bytes(msgspec.json.encode(self.make_manifest(*base_urls, **fields)))
        return self.manifest_path

    def read_progress(self) -> Progress | None:
        try:
            return msgspec.json.decode((self.output / "progress.json").read_bytes(), type=Progress)
        except FileNotFoundError:
            return None

    def count_done(self) -> int:
        """Lines in the results files so far."""
        paths = [self.output / f"{name}.jsonl{end}" for name in ("output", "error") for end in ("", ".part")]
        return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(self.sockets, ignore_errors=True)


class Engines:
    """Stub engines on an event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._engines: list[StubEngine] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def add(self, **options: Any) -> StubEngine:
        engine = StubEngine(**options)
        self.start(engine)
        return engine

    def start(self, engine: StubEngine, *, path: Path | None = None) -> None:
        self.do(engine.start(path=path))
        self._engines.append(engine)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        async def end() -> None:
            for engine in self._engines:
                await engine.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0.01)

        self.do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def engines() -> Iterator[Engines]:
    engines = Engines()
    yield engines
    engines.close()
