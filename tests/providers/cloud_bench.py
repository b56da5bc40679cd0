"""An emulated cloud and our client of it, every request of which is judged by the vendor's document. Used by the tests that
need real HTTP: the contract suite, the fault knobs, and what is special about each cloud."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from providers.clock import Clock, SystemClock
from providers.cloud import Cloud, LaunchRequest, MachineState, Need, Offer
from providers.emulators.emulator import Emulator, start_emulator
from providers.lambda_cloud.lambda_cloud import LambdaCloud
from providers.runpod.runpod import RunPod
from providers.settings import load_cloud_settings
from schemas.errors import RateLimited
from schemas.names import make_machine_name
from tests.providers.fake_api import HOST_KEYS, KEYS, TOKEN
from tests.providers.openapi_judge import LAMBDA, RUNPOD, load_judge

SPEED = 120.0
WAIT_S = 30.0
_DOCUMENTS = {"runpod": (RUNPOD, "/v2"), "lambda": (LAMBDA, "/api/v1")}


class FastClock:
    """Our clock beside an emulator that runs `speed` times as fast: sleeping is as much shorter, and counts whole. What this
    computer takes for everything else counts as it is, so that a busy one does not use up our deadlines."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._wall = time.time() - time.monotonic()
        self._skipped_s = 0.0

    def now(self) -> float:
        return self._wall + self.monotonic()

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped_s

    def sleep(self, seconds: float) -> None:
        seconds = max(seconds, 0.0)
        time.sleep(seconds / self.speed)
        self._skipped_s += seconds - seconds / self.speed


class JudgedTransport(httpx.HTTPTransport):
    """Sends for real and keeps what the vendor's document does not allow; requests to another base path are let by."""

    def __init__(self, cloud: str, problems: list[str]) -> None:
        # As our own client: every connection is new.
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))
        document, self._base_path = _DOCUMENTS[cloud]
        self._judge = load_judge(document, self._base_path)
        self._problems = problems

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        if request.url.path.startswith(f"{self._base_path}/"):
            found = self._judge.find_problems(request)
            self._problems += [f"{request.method} {request.url.path}: {problem}" for problem in found]
        return super().handle_request(request)


class Bench:
    """An emulator of one cloud and our client of it; problems: what the vendor's document does not allow."""

    def __init__(self, name: str, folder: Path, *, clock: Clock | None = None, **settings: Any) -> None:
        self.name = name
        self.folder = folder
        self.clock = clock or SystemClock()
        # Real seconds, and no log without a real machine.
        self._log_idle_s = 1.0 if settings.get("real_machines") else 0.1
        self.problems: list[str] = []
        self.emulator: Emulator = start_emulator(
            name,  # type: ignore[arg-type]
            state_dir=folder / "emulator",
            **({"speed": SPEED, "real_machines": False} | settings),
        )
        self.cloud: Any = self.make_cloud()

    def make_cloud(self, **environ: str) -> Cloud:
        """Our client of this account; environ changes what the environment says."""
        pace = SPEED if isinstance(self.clock, SystemClock) else 1
        base = {
            "HOME": str(self.folder),
            "LEASEHOLD_EMULATOR_PACE": str(pace),
            "LEASEHOLD_REQUEST_TIMEOUT_S": "2",
        }
        settings = load_cloud_settings(base | self.emulator.exports | environ)
        transport = JudgedTransport(self.name, self.problems)
        if self.name == "lambda":
            return LambdaCloud(settings, clock=self.clock, transport=transport)
        return RunPod(settings, clock=self.clock, transport=transport, log_idle_s=self._log_idle_s)

    def find_problems(self) -> list[str]:
        """What the document does not allow, but for what the service itself asked us to send."""
        return [each for each in self.problems if each != "GET /api/v1/instances: unknown parameter page_token"]

    def pick_offer(self) -> Offer:
        return next(offer for offer in self.cloud.offers(Need(gpu="H100-SXM")) if offer.available and offer.region)

    def make_request(self, index: int = 0, **fields: Any) -> LaunchRequest:
        expires_at = int(time.time()) + 3600
        values = {
            "name": make_machine_name(token=TOKEN, index=index, attempt=0, expires_at=expires_at),
            "offer": self.pick_offer(),
            "public_key": KEYS.public,
            "host_private_key": HOST_KEYS.private,
            "expires_at": expires_at,
        }
        return LaunchRequest(**(values | fields))

    def launch(self, index: int = 0, **fields: Any) -> tuple[str, LaunchRequest]:
        request = self.make_request(index, **fields)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return self.cloud.launch(request), request
            except RateLimited as error:
                assert time.monotonic() < deadline
                time.sleep(min(error.retry_after_s, 1.0))

    def wait_for(self, id: str, phase: str) -> MachineState:
        found: list[MachineState | None] = []

        def look() -> bool:
            found.append(self.cloud.find(id))
            return found[-1] is not None and found[-1].phase == phase

        wait_until(look)
        state = found[-1]
        assert state is not None
        return state

    def give_back(self, id: str) -> None:
        self.cloud.terminate(id)
        wait_until(lambda: self.cloud.find(id) is None)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


@contextlib.contextmanager
def open_bench(name: str, folder: Path, **settings: Any) -> Iterator[Bench]:
    """A bench whose machines are all given back at the end; fails the test for a request that no document allows."""
    bench = Bench(name, folder, **settings)
    with bench.emulator:
        if name == "lambda" and settings.get("speed") == 1.0:
            # The cloud's clock stands still as good as: so must its pace.
            bench.emulator.set_fault("request_interval_s", 0)
            bench.emulator.set_fault("launch_interval_s", 0)
        try:
            yield bench
        finally:
            bench.emulator.clear_faults()
            for machine in bench.emulator.live_machines():
                bench.emulator.advance(30)
                bench.cloud.terminate(machine.id)
            bench.emulator.advance(300)
            wait_until(lambda: not bench.emulator.live_machines())
        assert bench.find_problems() == [], "a request that the vendor's document does not allow"
