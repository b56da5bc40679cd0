"""All instances of an emulated Lambda account, and how each goes from a launch to its end on the cloud's clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from providers.emulators.account import Account
from providers.emulators.knobs import LAMBDA_KNOBS
from providers.emulators.lambda_cloud.cloud_init import UserData, run_commands, write_files
from providers.emulators.lambda_cloud.instance import Instance, Status
from providers.emulators.machines.machine_file import MachineFile
from providers.emulators.machines.machines import LIFETIME_S, MachinePlan
from providers.emulators.machines.ports import PublicPort
from providers.emulators.stock import Stock
from providers.keys import make_key_pair
from providers.local.folder import MachineSpec

_MACHINE_KNOBS = ("nvidia_smi", "engine_crash", "apt_get_fails")
_RESTART_S = 60.0
_IP_LATE_S = 60.0
# A machine's process needs about this long, in real seconds, until it can listen.
_PROCESS_START_S = 1.5
_DEFAULT_ACTIVE_S = next(knob.default for knob in LAMBDA_KNOBS if knob.name == "active_after_s")


class InstanceStore:
    """In the order of their launches; what is gone stays here for the tests and is shown to nobody."""

    def __init__(self, account: Account, stock: Stock) -> None:
        self.instances: dict[str, Instance] = {}
        self.stock = stock
        self._account = account
        self._clock = account.clock
        self._faults = account.faults
        self._machines = account.machines
        self._random = random.Random(account.settings.seed)

    def find(self, instance_id: str) -> Instance | None:
        instance = self.instances.get(instance_id)
        return instance if instance is not None and instance.is_listed(self._clock.now()) else None

    def list_at(self, moment: float) -> list[Instance]:
        return [instance for instance in self.instances.values() if instance.is_listed(moment)]

    def count_live(self) -> int:
        return sum(instance.terminated_at is None for instance in self.instances.values())

    def launch(self, instance: Instance, *, public_key: str, user_data: UserData) -> None:
        """Plan everything that will happen to a new instance; its stock has been taken by the caller."""
        self.instances[instance.id] = instance
        now, name = self._clock.now(), instance.name or ""
        instance.visible_at = now + float(self._faults.take("visible_after_s", name) or 0)
        instance.gettable_at = now + float(self._faults.take("get_404_after_launch_s", name) or 0)
        instance.terminate_refused = bool(self._faults.take("terminate_refused_booting", name))
        instance.faults = {knob: self._faults.take(knob, name) for knob in _MACHINE_KNOBS}
        instance.port = PublicPort()
        if self._faults.take("boot_stuck", name):
            return
        active_s = self._draw_active_s(instance)
        ip_s = self._faults.draw_s("ip_after_s", name)
        instance.ip_at = now + (active_s + _IP_LATE_S if self._faults.take("ip_late", name) else ip_s)
        instance.ssh_at = max(now + active_s + self._faults.draw_s("ssh_after_active_s", name), now)
        self._later(instance, active_s, lambda: self.set_active(instance))
        self._plan_failures(instance, name)
        self._start_machine(instance, public_key, user_data)

    def set_active(self, instance: Instance) -> None:
        now = self._clock.now()
        if instance.first_healthy is None:
            instance.first_healthy = now
            instance.meter.start("gpu", instance.price_usd_per_hour, now)
        instance.status = "active"

    def set_unhealthy(self, instance: Instance) -> None:
        """Billing goes on."""
        if instance.status in ("booting", "active"):
            instance.status = "unhealthy"

    def preempt(self, instance: Instance) -> None:
        self._finish(instance, "preempted")

    def terminate(self, instance: Instance) -> None:
        """The bill stops at once; the instance is there for a while yet."""
        if instance.status in ("terminating", "terminated", "preempted"):
            return
        now = self._clock.now()
        instance.plan += 1
        instance.status, instance.was_touched = "terminating", True
        instance.meter.stop_all(now)
        self._machines.end_soon(instance.id)
        self._later(
            instance,
            self._faults.draw_s("terminating_s", instance.name or ""),
            lambda: self._finish(instance, "terminated"),
        )

    def restart(self, instance: Instance) -> None:
        instance.was_touched = True
        instance.restarting_until = self._clock.now() + _RESTART_S

    def release_ports(self) -> None:
        """At the emulator's end."""
        for instance in self.instances.values():
            if instance.port is not None:
                instance.port.release()

    def watch(self) -> None:
        """An instance whose processes were shut down from inside is unwell, and billed."""
        for instance in self.instances.values():
            if instance.status == "active" and not instance.is_foreign and self._machines.has_ended(instance.id):
                self.set_unhealthy(instance)

    def make_id(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def _draw_active_s(self, instance: Instance) -> float:
        """Big types take longer, unless the knob says something."""
        name = instance.name or ""
        own = instance.kind.get("active_after_s")
        if own is not None and self._faults.peek("active_after_s", name) == _DEFAULT_ACTIVE_S:
            return self._random.uniform(*own)
        return self._faults.draw_s("active_after_s", name)

    def _plan_failures(self, instance: Instance, name: str) -> None:
        unhealthy_s = self._faults.take("unhealthy_at_s", name)
        if unhealthy_s is not None:
            self._later(instance, float(unhealthy_s), lambda: self.set_unhealthy(instance))
            recovers_s = self._faults.take("unhealthy_for_s", name)
            if recovers_s is not None:
                self._later(instance, float(unhealthy_s) + float(recovers_s), lambda: self.set_active(instance))
        preempted_s = self._faults.take("preempted_at_s", name)
        if preempted_s is not None:
            self._later(instance, float(preempted_s), lambda: self.preempt(instance))

    def _start_machine(self, instance: Instance, public_key: str, user_data: UserData) -> None:
        assert instance.ssh_at is not None
        early_s = _PROCESS_START_S * self._clock.speed

        def start() -> None:
            assert instance.ssh_at is not None
            wait_s = max(0.0, self._clock.to_real_s(instance.ssh_at - self._clock.now()))
            self._machines.start_soon(self._make_plan(instance, public_key, user_data, wait_s))

        self._later(instance, max(0.0, instance.ssh_at - early_s - self._clock.now()), start)
        if user_data.commands:
            self._later(
                instance,
                instance.ssh_at - self._clock.now(),
                lambda: self._machines.run_soon(instance.id, lambda folder: run_commands(folder, user_data)),
            )

    def _make_plan(self, instance: Instance, public_key: str, user_data: UserData, wait_s: float) -> MachinePlan:
        assert instance.port is not None
        file = MachineFile(
            cloud="lambda",
            id=instance.id,
            api_url=self._account.url,
            gpu_name=instance.kind["gpu_name"],
            gpu_count=instance.kind["specs"]["gpus"],
            gpu_memory_mib=instance.kind["gpu_memory_gb"] * 1024,
            public_ports={22: instance.port.number},
            shim_root=str(self._machines.shim_root),
            **{name: value for name, value in instance.faults.items() if value},
        )
        spec = MachineSpec(
            id=instance.id,
            name=instance.name or "",
            public_key="\n".join([public_key, *user_data.authorized_keys]),
            host_private_key=user_data.host_private_key or make_key_pair().private,
            expires_at=int(self._clock.now() + LIFETIME_S),
            port=instance.port.number,
            shims=(str(self._machines.shim_root / "lambda"),),
            fault="delay" if wait_s > 0 else "",
            fault_s=wait_s,
        )

        def prepare(folder: Path) -> None:
            write_files(folder, user_data)

        return MachinePlan(spec=spec, file=file, has_sshd=False, prepare=prepare)

    def _finish(self, instance: Instance, status: Status) -> None:
        now = self._clock.now()
        instance.plan += 1
        instance.status, instance.terminated_at = status, now
        instance.hidden_at = now + float(self._faults.take("terminated_shown_s", instance.name or "") or 0)
        instance.meter.stop_all(now)
        if not instance.is_foreign:
            self.stock.give_back(instance.kind["name"], "", instance.region["name"], 1)
        if instance.port is not None:
            instance.port.release()
        self._machines.end_soon(instance.id)

    def _later(self, instance: Instance, after_s: float, action: Callable[[], Any]) -> None:
        plan = instance.plan
        self._clock.call_at(self._clock.now() + after_s, lambda: action() if instance.plan == plan else None)
