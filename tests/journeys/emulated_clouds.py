"""Emulated RunPod and Lambda accounts for whole runs: processes of their own with a fast clock, and jobs that rent there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from providers.cloud import KeyedCloud
from providers.emulators.emulator import CloudName, Emulator, start_emulator_process
from providers.emulators.summary import MachineSummary
from providers.registry import make_cloud
from providers.settings import load_cloud_settings
from tests.journeys.workshop import Workshop

SPEED = 60
RUNPOD_H100 = "NVIDIA H100 80GB HBM3"
ON_RUNPOD: dict[str, Any] = {"cloud": "runpod", "gpu": "H100-SXM"}
ON_LAMBDA: dict[str, Any] = {"cloud": "lambda", "gpu": "A10"}
# One place only, so that a failed machine has no other offer to come from.
IN_KANSAS = {**ON_RUNPOD, "regions": ["US-KS-2"]}
IN_CALIFORNIA = {**ON_LAMBDA, "regions": ["us-west-1"]}


class EmulatedClouds:
    """The accounts that a test opens, and the workshop whose commands point at them. The accounts are in `running`."""

    speed = SPEED

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.running: dict[str, Emulator] = {}
        workshop.environment |= {
            "LEASEHOLD_EMULATOR_PACE": str(SPEED),
            "LEASEHOLD_REQUEST_TIMEOUT_S": "3",
            "LEASEHOLD_SETTLE_S": "1",
        }

    def open(self, *names: CloudName) -> None:
        """Start these accounts, without the workshop's mark: they are no part of a run. An instance boots in a minute,
        since waiting for its usual two to four shows nothing."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LEASEHOLD_")}
        for name in names:
            folder = self.workshop.folder / f"{name}-account"
            arguments = ["--speed", str(SPEED), *(["--fault", "active_after_s=60"] if name == "lambda" else [])]
            emulator = start_emulator_process(name, state_dir=folder, arguments=arguments, environment=environment)
            self.running[name] = emulator
            self.workshop.environment |= emulator.exports

    def run(self, job: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """`./inv run` of a job to its end, under the name of its file."""
        return self.workshop.inv("run", str(job), "--run", job.stem, "--yes", **environment)

    def close(self) -> None:
        for emulator in self.running.values():
            emulator.close()

    def machines(self) -> list[MachineSummary]:
        """Every machine that was ever made, in all accounts."""
        return [machine for emulator in self.running.values() for machine in emulator.machines()]

    def list_keys(self) -> list[str]:
        """Names of our SSH keys that are in the Lambda account."""
        settings = load_cloud_settings({**self.workshop.environment, **self.running["lambda"].exports})
        cloud = make_cloud("lambda", settings)
        assert isinstance(cloud, KeyedCloud)
        return list(cloud.list_keys("lh-"))

    def wait_until_nothing_is_left(self) -> None:
        """No machine and no SSH key in any account, no process of a machine, no process of the run."""
        alive = [machine for machine in self.machines() if not machine.is_gone]
        assert alive == []
        assert "lambda" not in self.running or self.list_keys() == []
        self.workshop.wait_for("the machines' processes to end", lambda: not self.machine_processes(), timeout_s=10)
        self.workshop.wait_until_nothing_is_left()

    def machine_processes(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("LEASEHOLD_MACHINE_FOLDER", "").startswith(str(self.workshop.folder)):
                    found.append(process.pid)
        return found

    def write_job(
        self,
        name: str,
        candidates: list[dict[str, Any]],
        *,
        replicas: int = 1,
        min_replicas: int = 1,
        lines: int = 40,
        max_tokens: int = 8,
        **changes: Any,
    ) -> Path:
        """A job for a 7B model with vLLM; changes replace whole top-level keys."""
        self._write_input(self.workshop.folder / f"{name}.jsonl", lines, max_tokens)
        machines = {"replicas": replicas, "min_replicas": min_replicas, "candidates": candidates}
        job = {
            "version": 1,
            "name": name,
            "input": f"{name}.jsonl",
            "template": "qwen2-5-7b@v1.0.0",
            "machines": machines,
            "limits": {"max_usd": 25, "max_hours": 1},
            **changes,
        }
        path = self.workshop.folder / f"{name}.yaml"
        path.write_text(json.dumps({key: value for key, value in job.items() if value is not None}))
        return path

    def make_deployment(self, **model_source: str) -> dict[str, Any]:
        """The same model as an inline deployment, with changes to where its weights come from."""
        return {
            "engine": {"type": "vllm", "version": "0.32.0", "image": "vllm/vllm-openai:v0.32.0"},
            "model_source": {"type": "huggingface", "uri": "Qwen/Qwen2.5-7B-Instruct", **model_source},
            "accelerator": {"type": "A10", "count": 1, "vram_gb": 24},
            "supported_endpoints": ["/v1/chat/completions"],
            "served_model_name": "qwen2.5-7b",
        }

    def _write_input(self, path: Path, lines: int, max_tokens: int) -> None:
        messages = [{"role": "user", "content": "My rented drill does not start."}]
        body = {"model": "qwen2.5-7b", "max_tokens": max_tokens, "messages": messages}
        rows = [
            {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            for number in range(lines)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextlib.contextmanager
def open_emulated_clouds(workshop: Workshop) -> Iterator[EmulatedClouds]:
    """No account yet; at the end all are closed, and no machine's process may be left."""
    clouds = EmulatedClouds(workshop)
    try:
        yield clouds
    finally:
        clouds.close()
    assert clouds.machine_processes() == []


def assert_all_answered(clouds: EmulatedClouds, name: str, lines: int = 40) -> None:
    """Everything that a run which went well shows: each line once, no mistake, no machine or key left, proven."""
    answers = clouds.workshop.lines(name)
    status = clouds.workshop.status(name)
    assert sorted(line["custom_id"] for line in answers) == sorted(f"id-{number}" for number in range(lines))
    assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in answers)
    assert all(line["response"]["body"]["model"] == "qwen2.5-7b" for line in answers)
    assert not clouds.workshop.lines(name, "error.jsonl")
    assert (status["state"], status["released"], status["exit_code"]) == ("completed", "verified", 0)
    clouds.wait_until_nothing_is_left()


def posts(clouds: EmulatedClouds, cloud: str, path: str) -> list[Any]:
    """Every POST to a path of that account's API."""
    history = clouds.running[cloud].history()
    return [each for each in history if each.method == "POST" and each.path.endswith(path)]


def events(clouds: EmulatedClouds, name: str, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in clouds.workshop.events(name).splitlines()]
    return [event for event in found if event["event"] == kind]
