"""An emulated Lambda account: its instances, SSH keys and file systems. Its routes work on it; LambdaServer holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from providers.emulators.account import Account, Settings
from providers.emulators.faults import Faults
from providers.emulators.foreign import make_foreign_instances
from providers.emulators.knobs import LAMBDA_KNOBS
from providers.emulators.lambda_cloud.instance import Instance
from providers.emulators.lambda_cloud.instance_store import InstanceStore
from providers.emulators.stock import lambda_stock
from providers.emulators.summary import MachineSummary


class LambdaAccount(Account):
    """keys and file_systems by id; a file system's is_in_use is worked out when it is shown."""

    cloud = "lambda"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, faults=Faults(LAMBDA_KNOBS, seed=settings.seed))
        self.keys: dict[str, dict[str, str]] = {}
        self.file_systems: dict[str, dict[str, Any]] = {}
        self.instances = InstanceStore(self, lambda_stock())
        make_foreign_instances(self.instances.instances, settings.foreign, self.clock.now())

    def summaries(self) -> list[MachineSummary]:
        return [self._summarize(instance) for instance in self.instances.instances.values()]

    def list_strikes(self, machine_id: str) -> dict[str, Callable[[], None]]:
        instance = self.instances.instances[machine_id]
        return {
            "unhealthy": lambda: self.instances.set_unhealthy(instance),
            "active": lambda: self.instances.set_active(instance),
            "preempted": lambda: self.instances.preempt(instance),
            "delete": lambda: self.instances.terminate(instance),
        }

    def set_stock(self, kind: str, region: str, units: int, tier: str) -> None:
        self.instances.stock.set(kind, "", region, units)

    def watch_machines(self) -> None:
        self.instances.watch()

    def release_ports(self) -> None:
        self.instances.release_ports()

    def _summarize(self, instance: Instance) -> MachineSummary:
        now = self.clock.now()
        return MachineSummary(
            id=instance.id,
            name=instance.name or "",
            cloud=self.cloud,
            status=instance.status,
            kind=instance.kind["name"],
            region=instance.region["name"],
            price_usd_per_hour=instance.price_usd_per_hour,
            cost_usd=instance.meter.usd(now),
            billed_s=instance.meter.billed_s(now),
            created_at=instance.created_at,
            ended_at=instance.terminated_at,
            is_foreign=instance.is_foreign,
            was_touched=instance.was_touched,
            ssh_port=instance.port.number if instance.port is not None else 0,
            folder=str(self.machines.root / instance.id) if self.machines.is_real and not instance.is_foreign else "",
            made_by_request=instance.made_by_request,
        )
