"""A machine for the scripts of stacks.launch.launch: a home folder, a PATH of its own, and a plain shell. Real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from stacks.launch.engine_script import render_engine_start
from stacks.launch.launch import EngineLaunch

ROOT = Path(__file__).parents[3]
KEY = "engine-key-that-nobody-may-see"
TOKEN = "hub-token-that-nobody-may-see"


class MachineUnderTest:
    """Runs scripts as sshd would: `sh -c SCRIPT`, with a home folder and what is on this machine's PATH."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.home.mkdir()
        self.bin.mkdir()
        self.folder = self.home / ".leasehold"
        self.shell = ["sh"]
        self.key = KEY
        self.token = TOKEN
        self.path = os.environ["PATH"]
        self.add_command("llamacpp-server", f'exec "{sys.executable}" -m runtime.llamacpp_server "$@"')

    def add_command(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def allow_only(self, *tools: str) -> None:
        """From now on PATH has these commands and our own, and nothing else."""
        for tool in tools:
            if tool == "python3":
                self.add_command(tool, f'exec "{sys.executable}" "$@"')
                continue
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.skip(f"{tool} is not installed here"))
        self.path = ""

    def begin(self, script: str, stdin: str = f"{KEY}\n{TOKEN}\n") -> subprocess.Popen[str]:
        environment = {
            "HOME": str(self.home),
            "PATH": f"{self.bin}:{self.path}".rstrip(":"),
            "PYTHONPATH": str(ROOT),
            "http_proxy": "http://127.0.0.1:9",
        }
        shell = [shutil.which(self.shell[0]) or pytest.skip(f"{self.shell[0]} is not installed here"), *self.shell[1:]]
        process = subprocess.Popen(
            [*shell, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, script: str, stdin: str = f"{KEY}\n{TOKEN}\n") -> subprocess.CompletedProcess[str]:
        process = self.begin(script, stdin)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    def start(self, launch: EngineLaunch) -> subprocess.CompletedProcess[str]:
        return self.run(render_engine_start(launch))

    def wait_for_engine(self) -> psutil.Process:
        pid_file = self.folder / "engine.pid"
        self.wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
        return self.engine

    @property
    def engine(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "engine.pid").read_text()))

    def find_processes(self) -> list[psutil.Process]:
        """Every process with this machine's home."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def is_gone(self, process: psutil.Process) -> bool:
        """Ended, even if nobody has asked for its exit code (what adopts orphans here may not)."""
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    def list_arguments(self) -> list[str]:
        words = []
        for process in self.find_processes():
            with contextlib.suppress(psutil.Error):
                words.append(" ".join(process.cmdline()))
        return words

    def ask(self, port: int, path: str, key: str = KEY) -> tuple[int, bytes]:
        """GET with the key; the status and the body."""
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.02)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[MachineUnderTest]:
    machine = MachineUnderTest(tmp_path)
    yield machine
    for process in machine.find_processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture
def launch() -> EngineLaunch:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = ("llamacpp-server", "--model", "builtin:tiny-chat", "--port", str(port), "--parallel", "4")
    return EngineLaunch(kind="llamacpp", where="local", arguments=command, port=port, ready_timeout_s=15)


@pytest.fixture
def short_launch(launch: EngineLaunch) -> EngineLaunch:
    """One whose deadline comes soon."""
    return msgspec.structs.replace(launch, ready_timeout_s=1)
