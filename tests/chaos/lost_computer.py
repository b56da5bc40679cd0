"""One of the computers that run a batch from S3 to S3 in turn: it works for a while, and then nothing of it is heard any more.

All share one account of local machines, which answer from a stub engine, and Pulumi's state. Used by test_lost_computers.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import psutil

from providers.local.processes import MARK_NAME
from tests.journeys.workshop import MARK, ROOT, Workshop
from tests.runtime.object_service import ObjectService

SLOTS, ANSWER_S = 64, 0.1
LINE_BYTES = 1010
_ENGINE = """#!/bin/sh
# The stub engine, by vLLM's name and command line.
while [ $# -gt 0 ] && [ "$1" != --port ]; do shift; done
exec {python} {stub} --port "$2" --slots {slots} --delay {delay} --padding 100
"""


class Computer(Workshop):
    """A computer that has the keys, and of the run nothing but the prefix; its machines may outlive it."""

    def __init__(self, folder: Path, account: Path, service: ObjectService, bucket: str, run: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.run = run
        self.cloud = account
        self.prefix = f"s3://{bucket}/out/"
        state = f"s3://{bucket}?region=us-east-1&endpoint=http://127.0.0.1:{service.port}&s3ForcePathStyle=true"
        self.environment |= {
            **service.environment,
            "LEASEHOLD_LOCAL_CLOUD_DIR": str(account),
            "PULUMI_BACKEND_URL": state,
            "PULUMI_CONFIG_PASSPHRASE": "what all of them know",
            "PATH": f"{self._install_engine()}:{self.environment['PATH']}",
        }

    def begin(self, bucket: str, *, heartbeat_minutes: float) -> None:
        """Start the batch from its job, as the first computer does."""
        job = self.write_job(
            lines=0,
            input=f"s3://{bucket}/in.jsonl",
            output=self.prefix,
            template=None,
            deploy=make_deployment(),
            machines={"replicas": 1, "candidates": [{"cloud": "local"}]},
            limits={"max_hours": 1, "heartbeat_minutes": heartbeat_minutes},
        )
        self.start("run", str(job), "--run", self.run, "--yes")

    def go_on(self) -> None:
        """Start from what the prefix has."""
        self.start("resume", self.prefix, "--new-run", self.run, "--yes")

    def token(self) -> str:
        """Of its lease; "" before there is one."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads((self.run_dir(self.run) / "lease.json").read_bytes())["token"])
        return ""

    def processes(self, *, with_machines: bool) -> list[psutil.Process]:
        """What runs on it; its machines are known by the token in their names."""
        token = self.token()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environ = process.environ()
                is_machine = bool(token) and token in environ.get(MARK_NAME, "")
                if (environ.get(MARK) == self.mark or (is_machine and with_machines)) and process.status() != "zombie":
                    found.append(process)
        return found

    def send(self, number: signal.Signals, *, with_machines: bool = True) -> int:
        """A signal to everything on it, until nobody is left who has not had it; how many have."""
        told: set[psutil.Process] = set()
        while fresh := set(self.processes(with_machines=with_machines)) - told:
            for process in fresh:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            told |= fresh
        return len(told)

    def live_machines(self) -> list[str]:
        """Names of its machines that have a living process."""
        token = self.token()
        names = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                name = process.environ().get(MARK_NAME, "")
                if token and token in name and process.status() != "zombie":
                    names.add(name)
        return sorted(names)

    def count_answers(self) -> int:
        """Answers on its disk, those that it has taken over included."""
        for name in ("output.jsonl", "output.jsonl.part"):
            with contextlib.suppress(OSError):
                return (self.run_dir(self.run) / name).read_bytes().count(b"\n")
        return 0

    def taken_over(self) -> int | None:
        """Answers that it began with; None before its run had a folder."""
        with contextlib.suppress(OSError, ValueError):
            plan: dict[str, Any] = json.loads((self.run_dir(self.run) / "plan.json").read_bytes())
            return int((plan["taken_over"] or {"answers": 0})["answers"])
        return None

    def typed(self) -> str:
        """What its commands have said."""
        return (self.folder / "typed.log").read_text()

    def is_at_work(self) -> bool:
        return any(each.poll() is None for each in self.started)

    def _install_engine(self) -> Path:
        stub = ROOT / "tests" / "runtime" / "stub_engine.py"
        path = self.folder / "bin" / "vllm"
        path.parent.mkdir()
        path.write_text(_ENGINE.format(python=sys.executable, stub=stub, slots=SLOTS, delay=ANSWER_S))
        path.chmod(0o755)
        return path.parent


def make_deployment() -> dict[str, Any]:
    return {
        "engine": {
            "type": "vllm",
            "version": "0.32.0",
            "image": "vllm/vllm-openai:v0.32.0",
            "ready_timeout_seconds": 60,
        },
        "model_source": {"type": "huggingface", "uri": "acme/stub"},
        "accelerator": {"type": "cpu"},
        "supported_endpoints": ["/v1/chat/completions"],
        "served_model_name": "tiny",
    }


def write_requests(path: Path, lines: int) -> None:
    """Of about 1 kB each."""
    text = "x" * 830
    with path.open("w") as file:
        for number in range(lines):
            body = {"model": "tiny", "messages": [{"role": "user", "content": f"{number} {text}"}], "max_tokens": 64}
            line = {"custom_id": f"request-{number:09d}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
