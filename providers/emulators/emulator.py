"""A running emulator as tests hold it: in this process on a thread, or a process of its own; the same handle for both.

with start_emulator("runpod", state_dir=tmp_path, speed=60) as cloud:
    cloud.set_fault("create_500_after_commit", count=1)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

from providers.emulators.account import Settings
from providers.emulators.admin import TOKEN_HEADER
from providers.emulators.cloud_server import CloudServer
from providers.emulators.history import Exchange
from providers.emulators.serving import describe, make_server, make_settings
from providers.emulators.summary import MachineSummary
from providers.local.environment import PROJECT_ROOT

CloudName = Literal["runpod", "lambda"]
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 30.0
_CALL_TIMEOUT_S = 10.0


class EmulatorError(RuntimeError):
    """The emulator did not start, or refused what a test asked of its admin routes."""


class Emulator:
    """base_url and key are what a client needs; exports are the environment variables that point Leasehold here."""

    def __init__(self, facts: Mapping[str, Any], stop: Callable[[], None], *, pid: int = 0) -> None:
        self.cloud: str = facts["cloud"]
        self.base_url: str = facts["base_url"]
        self.key: str = facts["api_key"]
        self.exports: dict[str, str] = dict(facts["exports"])
        self.admin_url: str = facts["admin_url"]
        self.admin_token: str = facts["admin_token"]
        self.pid = pid
        self._stop = stop

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the emulator and all its machines; a second call does nothing."""
        stop, self._stop = self._stop, lambda: None
        stop()

    def set_fault(self, name: str, value: Any = True, *, count: int | None = None, match: str = "") -> None:
        """Turn a knob of providers.emulators.knobs; None or False turns it back."""
        self._call("PUT", "faults", {"name": name, "value": value, "count": count, "match": match})

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def history(self, *, since: int = 0) -> list[Exchange]:
        """Every request so far with a higher number than since."""
        return msgspec.convert(self._call("GET", f"history?since={since}"), list[Exchange])

    def machines(self, *, foreign: bool = False) -> list[MachineSummary]:
        """Every machine that was ever made here (or the ones of other owners), the gone ones too."""
        machines = msgspec.convert(self._call("GET", "machines"), list[MachineSummary])
        return [machine for machine in machines if machine.is_foreign == foreign]

    def live_machines(self) -> list[MachineSummary]:
        return [machine for machine in self.machines() if not machine.is_gone]

    def cost_usd(self) -> float:
        """What all our machines have cost so far."""
        return sum(machine.cost_usd for machine in self.machines())

    def strike(self, machine_id: str, event: str) -> None:
        """Let something happen now. RunPod: exit, error, delete; Lambda: unhealthy, active, preempted, delete;
        both: nvidia_smi:<fault>."""
        self._call("POST", f"machines/{machine_id}", {"event": event})

    def set_stock(self, kind: str, region: str, units: int, *, tier: str = "") -> None:
        """kind: a GPU id or an instance type; units: free GPUs (RunPod) or instances (Lambda)."""
        self._call("PUT", "stock", {"kind": kind, "region": region, "units": units, "tier": tier})

    def now(self) -> float:
        """The cloud's clock."""
        return float(self._call("GET", "clock")["now"])

    def advance(self, seconds: float) -> None:
        """Push the cloud's clock forward."""
        self._call("POST", "clock", {"advance_s": seconds})

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.admin_url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={TOKEN_HEADER: self.admin_token},
        )
        try:
            with urllib.request.urlopen(request, timeout=_CALL_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise EmulatorError(f"{method} {path}: {error.read().decode()}") from None


def start_emulator(cloud: CloudName, *, state_dir: Path, port: int = 0, **settings: Any) -> Emulator:
    """Start one on a thread of this process; settings are those of make_settings (speed, contract, foreign, ...)."""
    thread = _ServerThread(cloud, make_settings(state_dir=state_dir, **settings), port)
    thread.start()
    if not thread.is_ready.wait(_START_TIMEOUT_S) or thread.server is None:
        raise EmulatorError(f"the {cloud} emulator did not start: {thread.error}")
    return Emulator(describe(thread.server), thread.stop)


def start_emulator_process(
    cloud: CloudName, *, state_dir: Path, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Emulator:
    """Start one as `python -m providers.emulators.serve`; arguments are added to its command line."""
    command = [sys.executable, "-P", "-m", "providers.emulators.serve", "--cloud", cloud, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--state-dir", str(state_dir), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**(os.environ if environment is None else environment), "PYTHONPATH": str(PROJECT_ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise EmulatorError(f"the {cloud} emulator ended at its start with status {process.wait(_START_TIMEOUT_S)}")

    def stop() -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait(_STOP_TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()

    return Emulator(json.loads(line), stop, pid=process.pid)


class _ServerThread(threading.Thread):
    def __init__(self, cloud: str, settings: Settings, port: int) -> None:
        super().__init__(name=f"{cloud} emulator", daemon=True)
        self.is_ready = threading.Event()
        self.server: CloudServer | None = None
        self.error = "no reason given"
        self._cloud = cloud
        self._settings = settings
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self.error = repr(error)
            raise
        finally:
            self.is_ready.set()

    def stop(self) -> None:
        if self._loop is not None and self.server is not None and self.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop may have ended by an admin call
                self._loop.call_soon_threadsafe(self.server.account.stopped.set)
        self.join(_STOP_TIMEOUT_S)
        if self.is_alive():
            raise EmulatorError(f"the {self._cloud} emulator did not end within {_STOP_TIMEOUT_S:.0f} s")

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = make_server(self._cloud, self._settings)
        await server.start(self._port)
        self.server = server
        self.is_ready.set()
        try:
            await server.account.stopped.wait()
        finally:
            await server.stop()
