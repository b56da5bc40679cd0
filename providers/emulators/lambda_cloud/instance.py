"""One emulated Lambda instance, and how the API shows it. Kept by InstanceStore."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from providers.emulators.machines.ports import PublicPort
from providers.emulators.meter import Meter
from providers.emulators.stock import load_table

Status = Literal["booting", "active", "unhealthy", "terminating", "terminated", "preempted"]
HOST = "127.0.0.1"
_ACTIONS = ("migrate", "rebuild", "restart", "cold_reboot", "terminate")


@dataclass(kw_only=True)
class Instance:
    """Times are on the cloud's clock; None: not (yet). plan counts changes of course, so that old plans are dropped."""

    id: str
    name: str | None
    hostname: str
    kind: dict[str, Any]
    region: dict[str, str]
    key_names: list[str]
    file_system_names: list[str]
    mounts: list[dict[str, str]]
    tags: list[dict[str, str]]
    created_at: float
    made_by_request: int
    status: Status = "booting"
    plan: int = 0
    visible_at: float = 0.0
    gettable_at: float = 0.0
    ip_at: float | None = None
    ssh_at: float | None = None
    restarting_until: float = 0.0
    first_healthy: float | None = None
    terminated_at: float | None = None
    hidden_at: float | None = None
    terminate_refused: bool = False
    is_foreign: bool = False
    was_touched: bool = False
    meter: Meter = field(default_factory=lambda: Meter(granularity_s=60))
    port: PublicPort | None = None
    faults: dict[str, Any] = field(default_factory=dict)

    @property
    def price_usd_per_hour(self) -> float:
        return float(self.kind["price_cents_per_hour"]) / 100

    def is_listed(self, moment: float) -> bool:
        return self.visible_at <= moment and (self.hidden_at is None or self.hidden_at > moment)

    def as_of(self, moment: float) -> Instance:
        """What a stale listing shows of it: as active, where it was not terminated yet."""
        if self.terminated_at is None or self.terminated_at <= moment:
            return self
        return dataclasses.replace(self, status="active")


def render_instance(instance: Instance, now: float) -> dict[str, Any]:
    """With fields that the document does not have, so that a strict parser breaks in tests and not in production."""
    view: dict[str, Any] = {
        "id": instance.id,
        "status": instance.status,
        "ssh_key_names": instance.key_names,
        "file_system_names": instance.file_system_names,
        "region": instance.region,
        "instance_type": render_kind(instance.kind),
        "hostname": instance.hostname,
        "actions": render_actions(instance, now),
        "tags": instance.tags,
        "firewall_rulesets": [],
        "is_reserved": False,
        "x_future_field": {"nested": [1, "two", None]},
    }
    if instance.name is not None:
        view["name"] = instance.name
    if instance.mounts:
        view["file_system_mounts"] = instance.mounts
    if instance.ip_at is not None and instance.ip_at <= now and instance.status not in ("terminated", "preempted"):
        view |= {"ip": HOST, "private_ip": "10.0.2.100"}
    if instance.port is not None:
        # Not Lambda's: an emulated machine cannot have port 22 of its own.
        view["ssh_port"] = instance.port.number
    if instance.status == "active":
        view |= {"jupyter_token": "0" * 32, "jupyter_url": "https://jupyter-x.lambdaspaces.com/?token=0"}
    return view


def render_kind(kind: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "description", "gpu_description", "price_cents_per_hour", "specs", "architecture")
    return {name: kind[name] for name in names}


def render_actions(instance: Instance, now: float) -> dict[str, Any]:
    reason = ""
    if instance.status in ("terminating", "terminated", "preempted"):
        reason = "vm-is-terminating"
    elif instance.restarting_until > now:
        reason = "vm-action-in-progress"
    elif instance.status == "booting":
        reason = "vm-has-not-launched"
    actions: dict[str, Any] = {}
    for action in _ACTIONS:
        is_available = not reason or (
            action == "terminate" and reason == "vm-has-not-launched" and not instance.terminate_refused
        )
        actions[action] = {"available": is_available}
        if not is_available:
            actions[action] |= {"reason_code": reason, "reason_description": reason.replace("-", " ")}
    return actions


def find_kind(name: str) -> dict[str, Any] | None:
    types: list[dict[str, Any]] = load_table("lambda_stock")["types"]
    return next((kind for kind in types if kind["name"] == name), None)


def find_region(name: str) -> dict[str, str] | None:
    regions: list[dict[str, str]] = load_table("lambda_stock")["regions"]
    return next((region for region in regions if region["name"] == name), None)
