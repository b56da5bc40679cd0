"""An emulated RunPod account: its pods, SSH keys, registry logins, volumes and secrets. Its routes work on it; RunPodServer
holds it."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Any

from providers.emulators.account import Account, Settings
from providers.emulators.faults import Faults
from providers.emulators.foreign import make_foreign_pods
from providers.emulators.knobs import RUNPOD_KNOBS
from providers.emulators.runpod.pod import Pod
from providers.emulators.runpod.pod_store import PodStore
from providers.emulators.runpod.quota import Quota
from providers.emulators.stock import runpod_stock
from providers.emulators.summary import MachineSummary


class RunPodAccount(Account):
    """registries: id to name; volumes and secrets: id to what is shown."""

    cloud = "runpod"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, faults=Faults(RUNPOD_KNOBS, seed=settings.seed))
        self.ssh_keys: list[str] = []
        self.registries: dict[str, str] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self._random = random.Random(settings.seed)
        self.quota = Quota(self.clock)
        self.pods = PodStore(self, runpod_stock())
        make_foreign_pods(self.pods.pods, settings.foreign, self.clock.now())

    def make_id(self) -> str:
        return "".join(self._random.choices(string.ascii_lowercase + string.digits, k=10))

    @property
    def is_september(self) -> bool:
        return self.settings.contract == "september"

    def summaries(self) -> list[MachineSummary]:
        return [self._summarize(pod) for pod in self.pods.pods.values()]

    def list_strikes(self, machine_id: str) -> dict[str, Callable[[], None]]:
        pod = self.pods.pods[machine_id]
        return {
            "exit": lambda: self.pods.exit(pod),
            "error": lambda: self.pods.break_down(pod),
            "delete": lambda: self.pods.delete(pod),
        }

    def set_stock(self, kind: str, region: str, units: int, tier: str) -> None:
        self.pods.stock.set(kind, tier or "SECURE", region, units)

    def watch_machines(self) -> None:
        self.pods.watch()

    def release_ports(self) -> None:
        self.pods.release_ports()

    def _summarize(self, pod: Pod) -> MachineSummary:
        now = self.clock.now()
        return MachineSummary(
            id=pod.id,
            name=pod.name,
            cloud=self.cloud,
            status=pod.status,
            kind=pod.gpu_id or "cpu",
            region=pod.region or "",
            price_usd_per_hour=pod.price_usd_per_hour,
            cost_usd=pod.meter.usd(now),
            billed_s=pod.meter.billed_s(now),
            created_at=pod.created_at,
            ended_at=pod.gone_at,
            is_foreign=pod.is_foreign,
            was_touched=pod.was_touched,
            ssh_port=pod.ports[22].number if 22 in pod.ports else 0,
            folder=str(self.machines.root / pod.id) if self.machines.is_real and not pod.is_foreign else "",
            made_by_request=pod.made_by_request,
        )
