"""An emulated account: its settings, clock, knobs, history and machines. The routes work on it; a server holds it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import msgspec

from providers.emulators.clock import CloudClock
from providers.emulators.faults import Faults
from providers.emulators.history import History
from providers.emulators.machines.machines import Machines
from providers.emulators.summary import MachineSummary


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How an emulator is started; state_dir holds the machines' folders and the history."""

    state_dir: Path
    api_key: str
    admin_token: str
    speed: float = 1.0
    seed: int = 0
    contract: str = "september"
    real_machines: bool = True
    foreign: int = 0


class Account(ABC):
    """port: where the server listens that holds it; stopped: set when somebody wants it to end."""

    cloud: str

    def __init__(self, settings: Settings, *, faults: Faults) -> None:
        self.settings = settings
        self.clock = CloudClock(speed=settings.speed)
        self.faults = faults
        self.history = History(settings.state_dir)
        self.machines = Machines(settings.state_dir, is_real=settings.real_machines)
        self.stopped = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def summaries(self) -> list[MachineSummary]:
        """Every machine that was ever made, the gone ones too."""

    def strike(self, machine_id: str, event: str) -> None:
        """Let something happen to a machine now; raises KeyError for an unknown machine or event."""
        kind, _, value = event.partition(":")
        actions = self.list_strikes(machine_id) | {
            "nvidia_smi": lambda: self.machines.set_nvidia_smi(machine_id, value)
        }
        actions[kind]()

    @abstractmethod
    def list_strikes(self, machine_id: str) -> dict[str, Callable[[], None]]:
        """What may happen to a machine of this cloud alone, by the event's name; raises KeyError for an unknown machine."""

    @abstractmethod
    def set_stock(self, kind: str, region: str, units: int, tier: str) -> None: ...

    @abstractmethod
    def watch_machines(self) -> None:
        """Look at the real machines once: which have ended by themselves, what they have written."""

    async def close(self) -> None:
        """End every machine that was made."""
        await self.machines.close()
        self.release_ports()

    @abstractmethod
    def release_ports(self) -> None: ...
