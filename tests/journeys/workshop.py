"""One user's computer for a test: a private home, local cloud and command line, and ways to look at and kill what runs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-P", str(ROOT / "toolchain" / "command_line.py")]
_KEPT = ("PATH", "HOME", "LANG", "USER", "LOGNAME", "TMPDIR", "SSL_CERT_FILE")
MARK = "LEASEHOLD_TEST_MARK"


def make_pulumi_home(folder: Path) -> Path:
    """A PULUMI_HOME without login and logs, with the plug-ins that ./inv has installed."""
    folder.mkdir(parents=True, exist_ok=True)
    plugins = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
    if plugins.is_dir() and not (folder / "plugins").exists():
        (folder / "plugins").symlink_to(plugins)
    return folder


class Workshop:
    """One user's computer: jobs in a folder, `./inv` to run, and ways to look at and kill what runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.cloud = folder / "cloud"
        self.mark = str(folder)
        # Where the user works there may be packages with the names of ours.
        (folder / "schemas").mkdir(exist_ok=True)
        (folder / "schemas" / "__init__.py").write_text("raise ImportError('this is the schemas of somebody else')")
        self.started: list[subprocess.Popen[bytes]] = []
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.environment |= {
            "LEASEHOLD_HOME": str(self.home),
            "LEASEHOLD_LOCAL_CLOUD_DIR": str(self.cloud),
            "LEASEHOLD_STATE_DIR": str(folder / "pace"),
            # No process outlives a test to tell somebody who is not there any more.
            "LEASEHOLD_NOTIFY_PATIENCE_S": "0",
            # Not the user's own: each call of Pulumi reads through all logs there, and leaves one more.
            "PULUMI_HOME": str(make_pulumi_home(folder / "pulumi")),
            # A twentieth of a run's processor time, and Pulumi's memory is no matter here.
            "GOGC": "400",
            MARK: self.mark,
        }

    def inv(self, *arguments: str, timeout_s: float = 180, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**self.environment, **more},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def answer(self, answer: str, *arguments: str, timeout_s: float = 120) -> tuple[int, str]:
        """Run a command on a terminal, give one answer to what it asks, and return its exit code and all that it said."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self.started.append(process)
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        watchdog = threading.Timer(timeout_s, process.kill)
        watchdog.start()
        said = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while block := os.read(ours, 65536):
                said += block
        watchdog.cancel()
        os.close(ours)
        return process.wait(20), said.decode(errors="replace")

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, as a terminal does."""
        with (self.folder / "typed.log").open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                env={**self.environment, **more},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def root_job(self, name: str) -> Path:
        """A job that the project ships."""
        return ROOT / "jobs" / name

    def run_dir(self, run: str) -> Path:
        return self.home / "runs" / run

    def status(self, run: str) -> dict[str, Any]:
        return dict(json.loads((self.run_dir(run) / "status.json").read_bytes()))

    def events(self, run: str) -> str:
        path = self.run_dir(run) / "events.jsonl"
        return path.read_text() if path.exists() else ""

    def lines(self, run: str, name: str = "output.jsonl") -> list[dict[str, Any]]:
        path = self.run_dir(run) / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def progress(self, run: str) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.run_dir(run) / "progress.json").read_bytes()))
        return None

    def wait_for(self, what: str, condition: Callable[[], Any], timeout_s: float = 400) -> Any:
        """The first true value of a condition; fails the test when it does not come."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited {timeout_s:.0f} s for {what}")

    def wait_for_answers(self, run: str, count: int, timeout_s: float = 400) -> None:
        def enough() -> bool:
            progress = self.progress(run)
            return progress is not None and progress["request_counts"]["completed"] >= count

        self.wait_for(f"{count} answers", enough, timeout_s)

    def wait_for_end(self, run: str, timeout_s: float = 400) -> dict[str, Any]:
        self.wait_for("the end of the run", lambda: _is_over(self, run), timeout_s)
        return self.status(run)

    def lifecycle(self, run: str) -> psutil.Process:
        record = json.loads((self.run_dir(run) / "lifecycle.json").read_bytes())
        return psutil.Process(record["lifecycle"]["pid"])

    def machines(self) -> list[dict[str, Any]]:
        """What the local cloud has, from its own records."""
        return [json.loads(path.read_bytes()) for path in sorted(self.cloud.glob("*/machine.json"))]

    def ours(self) -> list[psutil.Process]:
        """Every process that was started from this test, except this one; machines have a clean environment of their own."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environ = process.environ()
                machine = environ.get("LEASEHOLD_MACHINE_FOLDER", "")
                is_ours = environ.get(MARK) == self.mark or machine.startswith(str(self.cloud))
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_until_nothing_is_left(self, timeout_s: float = 40) -> None:
        """No machine and no process of this test; says what there still is."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = [*self.machines(), *(_describe(process) for process in self.ours())]
            if not left:
                return
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.1)

    def write_job(self, name: str = "trial", *, lines: int = 60, max_tokens: int = 8, **changes: Any) -> Path:
        """A job with its input; JSON is YAML too. changes replace whole top-level keys."""
        self.write_input(self.folder / f"{name}.jsonl", lines=lines, max_tokens=max_tokens)
        job: dict[str, Any] = {
            "version": 1,
            "name": name,
            "input": f"{name}.jsonl",
            "endpoint": "/v1/chat/completions",
            "template": "tiny-chat@1.0.0",
            "machines": {"replicas": 2, "min_replicas": 1, "candidates": [{"cloud": "local"}]},
            "limits": {"max_hours": 1},
            **changes,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({key: value for key, value in job.items() if value is not None}))
        return path

    def start_engine(self, *, key: str = "") -> str:
        """A server that runs already, with the tiny model; returns its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = ["--model", "builtin:tiny-chat", "--alias", "tiny-chat", "--port", str(port)]
        if key:
            (self.folder / "key").write_text(key)
            arguments += ["--api-key-file", str(self.folder / "key")]
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime.llamacpp_server", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        self.wait_for("the engine", lambda: _answers(port))
        return f"http://127.0.0.1:{port}"

    def kill_machine(self, machine: dict[str, Any]) -> None:
        """kill -9 a machine's own process, by id."""
        end_hard(psutil.Process(machine["pid"]))

    def tiny_deployment(self, **engine: Any) -> dict[str, Any]:
        """The tiny model as an inline deployment, with changes to its engine."""
        return {
            "engine": {"type": "llamacpp", "ready_timeout_seconds": 60, **engine},
            "model_source": {"type": "local", "uri": "builtin:tiny-chat"},
            "accelerator": {"type": "cpu"},
            "engine_args": {"max_model_len": 2048, "max_num_seqs": 8},
            "supported_endpoints": ["/v1/chat/completions"],
            "served_model_name": "tiny-chat",
        }

    def write_input(self, path: Path, *, lines: int, max_tokens: int) -> None:
        with path.open("w") as file:
            for number in range(lines):
                body = {
                    "model": "tiny-chat",
                    "max_tokens": max_tokens,
                    "messages": [{"role": "user", "content": f"My rented drill number {number} does not start."}],
                }
                line = {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line) + "\n")


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _is_over(workshop: Workshop, run: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return workshop.status(run)["ended_at"] is not None
    return False


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return str(process.pid)


def end_hard(process: psutil.Process) -> None:
    """kill -9, by id."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
