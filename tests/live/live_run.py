"""One tiny job on one real cloud: rented at the lowest price that fits, under a cap in USD, and given back whatever happens.

Used by the live tests; runs as well against an emulator, when the base URLs of the environment point at one.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from providers.cloud import KeyedCloud
from providers.lease.intents import load_intents
from providers.lease.lease import load_lease
from providers.open_clouds import CONSOLES, open_clouds
from schemas.names import make_prefix
from tests.journeys.workshop import Workshop

CAP_VARIABLE = "LEASEHOLD_LIVE_USD"
KEY_VARIABLES = {"runpod": "RUNPOD_API_KEY", "lambda": "LAMBDA_CLOUD_API_KEY"}
LINES = 8
MAX_HOURS = 0.5
BOOT_MINUTES = 25
# The command's own limits end it; this is for a life cycle that does not.
COMMAND_S = 3600 * MAX_HOURS + 1500
RELEASE_S = 1500
LOOK_S = 120.0
_PASSED_ON = ("RUNPOD_", "LAMBDA_CLOUD_", "LEASEHOLD_", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_")
_OWN = ("LEASEHOLD_HOME", "LEASEHOLD_LOCAL_CLOUD_DIR", "LEASEHOLD_LOCAL_FAULT")
_DEPLOYMENT = {
    "engine": {"type": "vllm", "version": "0.32.0", "image": "vllm/vllm-openai:v0.32.0", "ready_timeout_seconds": 900},
    "model_source": {"type": "huggingface", "uri": "Qwen/Qwen2.5-0.5B-Instruct"},
    "accelerator": {"type": "A10", "count": 1, "vram_gb": 16},
    "engine_args": {"max_model_len": 2048, "max_num_seqs": 8},
    "supported_endpoints": ["/v1/chat/completions"],
    "served_model_name": "qwen2.5-0.5b",
}


def read_cap_usd(environ: Mapping[str, str]) -> float:
    """What all live tests together may cost; skips the test when nobody said it, fails it when it is no amount."""
    text = environ.get(CAP_VARIABLE, "").strip()
    if not text:
        pytest.skip(f"{CAP_VARIABLE} is not set: live tests rent real machines, and it says for how many USD at most")
    try:
        cap = float(text)
    except ValueError:
        cap = 0.0
    if not 0.1 <= cap <= 1000:
        pytest.fail(f"{CAP_VARIABLE}={text!r} is no amount in USD; write for example 2", pytrace=False)
    return cap


def require_key(cloud: str, environ: Mapping[str, str]) -> None:
    """Skip the test of a cloud to which the environment holds no key."""
    if not environ.get(KEY_VARIABLES[cloud], "").strip():
        pytest.skip(f"{KEY_VARIABLES[cloud]} is not set: {cloud} is left out")


class LiveRun:
    """The job, the run and its end. max_usd: what this one run may cost."""

    def __init__(self, cloud: str, folder: Path, max_usd: float) -> None:
        self.cloud = cloud
        self.max_usd = max_usd
        self.name = f"live-{cloud}-{secrets.token_hex(3)}"
        self.workshop = Workshop(folder)
        passed_on = {name: os.environ[name] for name in os.environ if name.startswith(_PASSED_ON) and name not in _OWN}
        self.workshop.environment |= passed_on

    def run(self) -> Any:
        """`./inv run` of the job, to its end."""
        return self.workshop.inv("run", str(self._write_job()), "--run", self.name, "--yes", timeout_s=COMMAND_S)

    def receipt(self) -> dict[str, Any]:
        return dict(json.loads((self.workshop.run_dir(self.name) / "receipt.json").read_bytes()))

    def list_machines(self) -> list[str]:
        """Every machine of this run that the cloud still lists, asked for with a client of our own."""
        return [state.id for state in self._client.list_ours(self._prefix)]

    def list_keys(self) -> list[str]:
        client = self._client
        return list(client.list_keys(self._prefix)) if isinstance(client, KeyedCloud) else []

    def reap(self) -> None:
        """Give back whatever the run has left, and fail unless the cloud shows that nothing is. Safe to repeat."""
        if not self._has_lease():
            return
        released = self.workshop.inv("release", self.name, timeout_s=RELEASE_S)
        deadline = time.monotonic() + LOOK_S
        while left := self.list_machines():
            for id in left:
                self._client.terminate(id)
            if time.monotonic() > deadline:
                pytest.fail(f"still there: {left}; end them by hand: {CONSOLES[self.cloud]}\n{released.stderr}")
            time.sleep(2)
        keys = self.list_keys()
        for key in keys:
            self._client.remove_key(key)
        assert keys == [], "the release left SSH keys in the account; they have been removed now"
        assert released.returncode == 0, released.stderr

    @property
    def _prefix(self) -> str:
        return make_prefix(load_lease(self.workshop.run_dir(self.name)).token)

    @property
    def _client(self) -> Any:
        return open_clouds([self.cloud], self.workshop.environment)[self.cloud]

    def _has_lease(self) -> bool:
        folder = self.workshop.run_dir(self.name)
        has_one = (folder / "lease.json").exists()
        assert has_one or not load_intents(folder).intents, "machines were asked for, and the lease's record is gone"
        return has_one

    def _write_job(self) -> Path:
        """The cheapest machine with a GPU of 16 GB, and limits that cannot add up to more than max_usd."""
        self._write_input(self.workshop.folder / "live.jsonl")
        candidate: dict[str, Any] = {
            "cloud": self.cloud,
            "any": {"min_gb": 16},
            "max_usd_per_hour": round(self.max_usd / MAX_HOURS, 4),
        }
        if self.cloud == "runpod":
            candidate["disk_gb"] = 40
        job = {
            "version": 1,
            "name": self.name,
            "input": "live.jsonl",
            "deploy": _DEPLOYMENT,
            "machines": {"replicas": 1, "candidates": [candidate], "rank": "price"},
            "limits": {"max_usd": self.max_usd, "max_hours": MAX_HOURS, "boot_minutes": BOOT_MINUTES},
        }
        path = self.workshop.folder / "live.yaml"
        path.write_text(json.dumps(job))
        return path

    def _write_input(self, path: Path) -> None:
        messages = [{"role": "user", "content": "Say in five words what a lease is."}]
        body = {"model": _DEPLOYMENT["served_model_name"], "max_tokens": 16, "messages": messages}
        rows = [
            {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            for number in range(LINES)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
