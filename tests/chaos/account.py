"""The account in which a random run rents: the local cloud's or an emulator's, machines of others in it, as a checker sees it."""

from __future__ import annotations

import json
import time
from typing import Any, Protocol

import psutil

from providers.cloud import LaunchRequest, Need
from providers.emulators.emulator import start_emulator_process
from providers.keys import load_or_make_key_pair
from providers.local.local import make_local_cloud
from providers.open_clouds import open_clouds
from schemas.names import PREFIX, make_machine_name
from tests.chaos.scenario import CloudKind
from tests.journeys.workshop import Workshop

SPEED = 60
_STRANGERS = 5


class Account(Protocol):
    """has_dead_man: whether machines end themselves at their expiry."""

    has_dead_man: bool
    candidate: dict[str, Any]
    template: str
    model: str

    def live(self) -> list[str]: ...
    def keepers(self) -> list[int]: ...
    def find_harm(self) -> str: ...
    def is_strange(self, process: psutil.Process) -> bool: ...
    def longest_life_s(self) -> float: ...
    def list_keys(self) -> list[str]: ...
    def set_fault(self, fault: str) -> None: ...
    def close(self) -> None: ...


def open_account(cloud: CloudKind, workshop: Workshop) -> Account:
    return LocalAccount(workshop) if cloud == "local" else EmulatedAccount(cloud, workshop)


class LocalAccount:
    """This computer's own; a machine of another lease lives beside ours."""

    has_dead_man = True
    template = "tiny-chat@1.0.0"
    model = "tiny-chat"

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.candidate = {"cloud": "local"}
        self.cloud = make_local_cloud(workshop.environment)
        keys = load_or_make_key_pair(workshop.folder / "stranger")
        expires_at = int(time.time()) + 600
        name = make_machine_name(token="zzzzzzzzzzzz", index=0, attempt=1, expires_at=expires_at)
        self.stranger = self.cloud.launch(
            LaunchRequest(
                name=name,
                offer=self.cloud.offers(Need())[0],
                public_key=keys.public,
                host_private_key=keys.private,
                expires_at=expires_at,
                image="",
                disk_gb=0,
                heartbeat_timeout_s=0,
                settings={},
            )
        )

    def live(self) -> list[str]:
        return [state.name for state in self.cloud.list_ours(PREFIX) if state.id != self.stranger]

    def keepers(self) -> list[int]:
        return [record["pid"] for record in self.workshop.machines() if record["id"] != self.stranger and record["pid"]]

    def find_harm(self) -> str:
        state = self.cloud.find(self.stranger)
        return "" if state is not None and state.phase in ("starting", "ready") else "another lease's machine was ended"

    def is_strange(self, process: psutil.Process) -> bool:
        return process.environ().get("LEASEHOLD_MACHINE_ID") == self.stranger

    def longest_life_s(self) -> float:
        """Not known after the fact: what is over its time shows as what is left."""
        return 0.0

    def list_keys(self) -> list[str]:
        return []

    def set_fault(self, fault: str) -> None:
        self.workshop.environment["LEASEHOLD_LOCAL_FAULT"] = fault

    def close(self) -> None:
        self.cloud.terminate(self.stranger)


class EmulatedAccount:
    """An emulator's, a process of its own with a fast clock."""

    template = "qwen2-5-7b@v1.0.0"
    model = "qwen2.5-7b"

    def __init__(self, cloud: CloudKind, workshop: Workshop, *, strangers: int = _STRANGERS) -> None:
        assert cloud != "local"
        self.strangers = strangers
        self.name = cloud
        self.workshop = workshop
        self.has_dead_man = cloud == "runpod"
        self.candidate = {"cloud": cloud, "gpu": {"runpod": "H100", "lambda": "A10"}[cloud]}
        arguments = ["--speed", str(SPEED), "--foreign", str(strangers)]
        self.emulator = start_emulator_process(cloud, state_dir=workshop.folder / "account", arguments=arguments)
        workshop.environment |= {
            **self.emulator.exports,
            "LEASEHOLD_EMULATOR_PACE": str(SPEED),
            "LEASEHOLD_REQUEST_TIMEOUT_S": "4",
            "LEASEHOLD_SETTLE_S": "2",
        }

    def live(self) -> list[str]:
        return [machine.name for machine in self.emulator.machines() if not machine.is_gone]

    def keepers(self) -> list[int]:
        paths = (self.workshop.folder / "account").glob("*/machines/*/machine.json")
        return [pid for path in paths if (pid := json.loads(path.read_bytes()).get("pid"))]

    def find_harm(self) -> str:
        strangers = self.emulator.machines(foreign=True)
        harmed = [each.name for each in strangers if each.was_touched or each.is_gone]
        if len(strangers) < self.strangers:
            return "machines of others are missing"
        return f"machines of others were touched: {harmed}" if harmed else ""

    def is_strange(self, process: psutil.Process) -> bool:
        return False

    def longest_life_s(self) -> float:
        """In real seconds."""
        lives = [each.billed_s for each in self.emulator.machines()]
        return max(lives, default=0.0) / SPEED

    def list_keys(self) -> list[str]:
        cloud: Any = open_clouds([self.name], self.workshop.environment)[self.name]
        return list(cloud.list_keys(PREFIX)) if self.name == "lambda" else []

    def set_fault(self, fault: str) -> None:
        name, _, value = fault.partition("=")
        if name:
            self.emulator.set_fault(name, float(value) if value else True, count=None if value else 1)

    def close(self) -> None:
        self.emulator.close()
