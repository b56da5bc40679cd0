"""A cloud in memory with a clock that only moves when somebody sleeps, and every fault that a real one has shown.

Used by the tests of lease, acquisition, sweep and reaper, and by the chaos tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.cloud import LaunchRequest, MachineState, Need, Offer
from providers.lease import acquisition, intents
from providers.lease.intents import Intent, append_intent, load_intents
from providers.lease.lease import INTENTS_FILE, load_lease
from schemas.errors import CloudError, CredentialError, NoCapacity, RateLimited, RequestRefused, UnclearOutcome
from schemas.names import parse_machine_name

START = 1_790_000_000.0
TOKEN = "abcdefghijkl"
PREFIX = f"lh-{TOKEN}-"


class Killed(BaseException):
    """kill -9 at this point: nothing of ours runs after it."""


class Steps:
    """Counts the points at which a process can die; dies at number kill_at, or tears the line being written there."""

    def __init__(self) -> None:
        self.count = 0
        self.kill_at: int | None = None

    def reach(self, _what: str) -> None:
        self.count += 1
        if self.count == self.kill_at:
            self.kill_at = None
            raise Killed(_what)

    @contextlib.contextmanager
    def dying_at(self, number: int) -> Iterator[None]:
        self.count, self.kill_at = 0, number
        try:
            yield
        finally:
            self.kill_at = None


class FakeClock:
    """Time passes by sleeping alone; alarms ring while somebody sleeps over them."""

    def __init__(self, steps: Steps | None = None) -> None:
        self.time = START
        self.steps = steps or Steps()
        self.slept_s = 0.0
        self.serial = 0
        self._alarms: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time - START + 1_000.0

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0, "slept for a negative time"
        self.steps.reach("sleep")
        self.slept_s += seconds
        assert self.slept_s < 1_000_000, "this wait has no end"
        self.time += max(seconds, 0.001)
        for due in [each for each in self._alarms if each[0] <= self.time]:
            self._alarms.remove(due)
            due[1]()

    def at(self, after_s: float, action: Callable[[], None]) -> None:
        self._alarms.append((self.time + after_s, action))


@dataclasses.dataclass
class FakeMachine:
    id: str
    name: str
    created_at: float
    visible_at: float
    gone_at: float | None = None
    phase: str = "ready"
    asked: int = 0

    def is_alive(self, now: float) -> bool:
        return self.gone_at is None or self.gone_at > now

    def is_shown(self, then: float) -> bool:
        return self.visible_at <= then and self.is_alive(then)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call that reached the cloud; outcome "dead" means that the caller died before the answer."""

    number: int
    time: float
    operation: str
    argument: str
    outcome: str


class ScriptedCloud:
    """Faults are attributes: launch_faults (one a create, then "ok"), down_until, refuses_key, rate_limits (so many calls),
    delete_lag_s, delete_500s (so many, each done all the same), stale_s (a function: how old the next view is)."""

    def __init__(self, name: str, clock: FakeClock, *, run_dir: Path | None = None) -> None:
        self.name = name
        self.clock = clock
        self.run_dir = run_dir
        self.machines: list[FakeMachine] = []
        self.calls: list[Call] = []
        self.launch_faults: deque[str] = deque()
        self.late_s = 60.0
        self.post_timeout_s = 60.0
        self.down_until = 0.0
        self.refuses_key = False
        self.rate_limits = 0
        self.delete_lag_s = 0.0
        self.delete_500s = 0
        self.delete_reaches_hidden = True
        self.stale_s: Callable[[], float] = lambda: 0.0
        self.tells_created_at = True

    def add_foreign(self, name: str, **fields: Any) -> FakeMachine:
        machine = self._make(name)
        for field, value in fields.items():
            setattr(machine, field, value)
        return machine

    @property
    def alive(self) -> list[FakeMachine]:
        return [each for each in self.machines if each.is_alive(self.clock.time)]

    def offers(self, need: Need) -> list[Offer]:
        return [make_offer(self.name)]

    def launch(self, request: LaunchRequest) -> str:
        self._check_protocol(request.name)
        self._reach("launch", request.name)
        fault = self.launch_faults.popleft() if self.launch_faults else "ok"
        try:
            outcome, result = self._launch(request.name, fault)
            self.clock.steps.reach("answer of launch")
        except Killed:
            self._note("launch", request.name, "dead")
            raise
        self._note("launch", request.name, outcome)
        if isinstance(result, Exception):
            raise result
        return result

    def find(self, name_or_id: str) -> MachineState | None:
        self._ask("find", name_or_id)
        shown = self._view()
        found = [each for each in shown if each.id == name_or_id] or [each for each in shown if each.name == name_or_id]
        self._note("find", name_or_id, "seen" if found else "none")
        return self._describe(found[0]) if found else None

    def terminate(self, id: str) -> None:
        self._ask("terminate", id)
        machine = next((each for each in self.machines if each.id == id), None)
        if machine is not None:
            machine.asked += 1
            if machine.visible_at <= self.clock.time or self.delete_reaches_hidden:
                machine.gone_at = machine.gone_at or self.clock.time + self.delete_lag_s
        self.clock.steps.reach("answer of terminate")
        self._note("terminate", id, "done")
        if self.delete_500s:
            self.delete_500s -= 1
            raise CloudError("the cloud answered 500", where=self.name, status=500)

    def list_ours(self, prefix: str) -> list[MachineState]:
        self._ask("list", prefix)
        # Filters of real clouds have been ignored: give everything that looks at all like ours, and let the caller filter.
        shown = [self._describe(each) for each in self._view() if each.name.startswith("lh-")]
        self._note("list", prefix, "seen" if any(each.name.startswith(prefix) for each in shown) else "none")
        return shown

    def logs(self, id: str) -> str:
        return ""

    def _launch(self, name: str, fault: str) -> tuple[str, str | Exception]:
        if self.clock.time < self.down_until:
            fault = "lost"
        refusals: dict[str, Exception] = {
            "no_capacity": NoCapacity("no H100 left here"),
            "refused": RequestRefused("field gpu is wrong", status=422),
            "no_key": CredentialError("the key was refused"),
            "failed": CloudError("the quota is used up", status=402),
        }
        if fault in refusals:
            return fault, refusals[fault]
        if fault == "rate_limited":
            limited = RateLimited("slow down", status=429)
            limited.retry_after_s = 12.0
            return "rate_limited", limited
        if fault in ("ok", "hidden"):
            machine = self._make(name)
            machine.visible_at += self.late_s if fault == "hidden" else 0.0
            return "created", machine.id
        made = {"lost": 0, "made": 1, "late": 1, "twice": 2, "late_twin": 2}[fault]
        for number in range(made):
            machine = self._make(name)
            if fault == "late" or (fault == "late_twin" and number == 1):
                machine.visible_at += self.late_s
        self.clock.sleep(self.post_timeout_s)
        return "unclear", UnclearOutcome("the connection was cut", where=self.name)

    def _check_protocol(self, name: str) -> None:
        """What must hold before any create: an open lease, and an intent of this name on disk that was not used yet."""
        assert name not in {call.argument for call in self.calls if call.operation == "launch"}, "a name was used twice"
        if self.run_dir is not None:
            assert load_lease(self.run_dir).state == "open", "a create after the revocation"
            assert name in {intent.name for intent in load_intents(self.run_dir).intents}, "a create without an intent"

    def _make(self, name: str) -> FakeMachine:
        now = self.clock.time
        machine = FakeMachine(f"{self.name}-{len(self.machines)}", name, created_at=now, visible_at=now)
        self.machines.append(machine)
        return machine

    def _ask(self, operation: str, argument: str) -> None:
        self._reach(operation, argument)
        if self.clock.time < self.down_until:
            self._note(operation, argument, "down")
            raise CloudError("the cloud answered 503", where=self.name, status=503)

    def _reach(self, operation: str, argument: str) -> None:
        self.clock.steps.reach(operation)
        if self.refuses_key:
            self._note(operation, argument, "no_key")
            raise CredentialError("the key was refused", where=self.name)
        if self.rate_limits:
            self.rate_limits -= 1
            self._note(operation, argument, "rate_limited")
            error = RateLimited("slow down", where=self.name, status=429)
            error.retry_after_s = 10.0
            raise error

    def _view(self) -> list[FakeMachine]:
        then = self.clock.time - self.stale_s()
        return [each for each in self.machines if each.is_shown(then)]

    def _describe(self, machine: FakeMachine) -> MachineState:
        ending = machine.asked > 0 and machine.gone_at is not None
        return MachineState(
            cloud=self.name,
            id=machine.id,
            name=machine.name,
            phase="ending" if ending else machine.phase,  # type: ignore[arg-type]
            price_usd_per_hour=2.5,
            created_at=machine.created_at if self.tells_created_at else 0.0,
        )

    def _note(self, operation: str, argument: str, outcome: str) -> None:
        self.clock.serial += 1
        self.calls.append(Call(self.clock.serial, self.clock.time, operation, argument, outcome))


class KeyedScriptedCloud(ScriptedCloud):
    """As Lambda: per-job keys stand in the account."""

    def __init__(self, name: str, clock: FakeClock, *, run_dir: Path | None = None) -> None:
        super().__init__(name, clock, run_dir=run_dir)
        self.keys: dict[str, str] = {}

    def register_key(self, name: str, public_key: str) -> None:
        self._ask("register_key", name)
        self.keys[name] = public_key

    def list_keys(self, prefix: str) -> list[str]:
        self._ask("list_keys", prefix)
        return list(self.keys)

    def remove_key(self, name: str) -> None:
        self._ask("remove_key", name)
        self.keys.pop(name, None)
        self._note("remove_key", name, "done")


def make_offer(cloud: str, region: str = "r1", price: float = 2.5) -> Offer:
    return Offer(cloud=cloud, gpu="H100", gpu_id="h100", count=1, memory_gb=80, region=region, price_usd_per_hour=price)


def make_request(name: str, offer: Offer) -> LaunchRequest:
    parsed = parse_machine_name(name)
    assert parsed is not None
    return LaunchRequest(
        name=name, offer=offer, public_key="ssh-ed25519 A", host_private_key="-", expires_at=parsed.expires_at
    )


def make_intent(name: str, **fields: Any) -> Intent:
    """An intent line of a machine name, with everything that a test does not care about filled in."""
    parsed = parse_machine_name(name)
    assert parsed is not None
    values: dict[str, Any] = {
        "time": START,
        "kind": "intent",
        "name": name,
        "index": parsed.index,
        "attempt": 0,
        "cloud": "a",
        "offer": "a/h100/1//r1",
        "price_usd_per_hour": 2.5,
    }
    return Intent(**(values | fields))


def step_on_appends(monkeypatch: pytest.MonkeyPatch, steps: Steps) -> None:
    """Make every append to intents.jsonl three points to die at: before it, in the middle of the line, and after it."""

    def append(run_dir: Path, intent: Intent) -> None:
        steps.reach("append")
        try:
            steps.reach("half a line")
        except Killed:
            line = msgspec.json.encode(intent)
            with (run_dir / INTENTS_FILE).open("ab") as file:
                file.write(line[: len(line) // 2])
            raise
        append_intent(run_dir, intent)
        steps.reach("appended")

    for module in (acquisition, intents):
        monkeypatch.setattr(module, "append_intent", append)


def find_blind_creates(clouds: list[ScriptedCloud]) -> list[str]:
    """Creates that followed an unclear one of the same index without an answered look for its name in between."""
    calls = sorted((call.number, cloud.name, call) for cloud in clouds for call in cloud.calls)
    blind: list[str] = []
    waiting: dict[int, set[tuple[str, str]]] = {}
    for _number, cloud, call in calls:
        if call.operation == "list" and call.outcome in ("seen", "none"):
            for names in waiting.values():
                names -= {each for each in names if each[0] == cloud and each[1].startswith(call.argument)}
        if call.operation == "launch":
            index = parse_index(call.argument)
            blind += [f"{call.argument} in {cloud} blind to {each}" for each in sorted(waiting.get(index, ()))]
            if call.outcome in ("unclear", "dead"):
                waiting.setdefault(index, set()).add((cloud, call.argument))
    return blind


def parse_index(name: str) -> int:
    parsed = parse_machine_name(name)
    assert parsed is not None
    return parsed.index
