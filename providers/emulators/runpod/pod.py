"""One emulated pod: what was asked for and what it is now. Kept by PodStore, shown by pod_view."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass, field
from typing import Any, Literal

from providers.emulators.machines.ports import PublicPort
from providers.emulators.meter import Meter
from providers.emulators.stock import load_table

Status = Literal["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]
ACTIONS: dict[Status, tuple[str, ...]] = {
    "PROVISIONING": ("stop", "terminate"),
    "STARTING": ("stop", "terminate"),
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "ERROR": ("start", "terminate"),
    "TERMINATED": (),
}


@dataclass(kw_only=True)
class Pod:
    """Times are on the cloud's clock. config holds the fields of the create body that PATCH may change.

    held_gpus: taken from the stock, whatever the pod shows.
    boot counts the starts, so that what was planned for an earlier one is not done to a later one. ssh_at None: never.
    """

    id: str
    number: int
    config: dict[str, Any]
    cloud: str
    gpu_id: str
    gpu_count: int
    cpu: dict[str, Any] | None
    region: str | None
    price_usd_per_hour: float
    created_at: float
    key: str
    made_by_request: int
    held_gpus: int = 0
    status: Status = "PROVISIONING"
    boot: int = 0
    visible_at: float = 0.0
    started_at: float | None = None
    ssh_at: float | None = None
    deleted_at: float | None = None
    gone_at: float | None = None
    hidden_at: float | None = None
    terminate_after: float | None = None
    cluster: dict[str, Any] | None = None
    is_foreign: bool = False
    was_touched: bool = False
    meter: Meter = field(default_factory=Meter)
    ports: dict[int, PublicPort] = field(default_factory=dict)
    log: list[tuple[float, str, str]] = field(default_factory=list)
    faults: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def is_gone(self) -> bool:
        return self.gone_at is not None

    def is_listed(self, moment: float) -> bool:
        """Whether listings and look-ups show it at this moment."""
        return self.visible_at <= moment and (self.hidden_at is None or self.hidden_at > moment)

    def as_of(self, moment: float) -> Pod:
        """What a stale listing shows of it: as running, where it was not gone yet."""
        if self.gone_at is None or self.gone_at <= moment:
            return self
        return dataclasses.replace(self, status="RUNNING", gone_at=None)

    def is_reachable(self, now: float) -> bool:
        return self.status == "RUNNING" and self.ssh_at is not None and self.ssh_at <= now


def read_command(config: dict[str, Any]) -> tuple[list[str] | None, list[str] | None]:
    """entrypoint and cmd as the client gave them, from the arrays or from args; None: not given."""
    entrypoint, cmd = config.get("entrypoint"), config.get("cmd")
    if entrypoint is None and cmd is None and config.get("args"):
        return parse_args(config["args"])
    return entrypoint, cmd


def parse_args(args: str) -> tuple[list[str] | None, list[str] | None]:
    """A stored command: JSON text with both arrays, or a shell string that is the cmd. Raises ValueError."""
    if args.lstrip().startswith("{"):
        stored = json.loads(args)
        return stored.get("entrypoint"), stored.get("cmd")
    return None, shlex.split(args)


def store_args(config: dict[str, Any]) -> str:
    """args as a pod shows it: the stored form of the arrays, else what was sent."""
    given = {name: config[name] for name in ("entrypoint", "cmd") if config.get(name)}
    return json.dumps(given, separators=(",", ":")) if given else str(config.get("args") or "")


def find_image(name: str) -> dict[str, Any]:
    """What the image of this name brings along (data/images.json)."""
    images: list[dict[str, Any]] = load_table("images")["images"]
    return next(image for image in images if name.startswith(image["prefix"]))


def make_argv(config: dict[str, Any]) -> list[str]:
    """What the container's first process is."""
    image = find_image(config.get("image", ""))
    entrypoint, cmd = read_command(config)
    if entrypoint is None:
        entrypoint = image["entrypoint"]
        if cmd is None:
            cmd = image["default_cmd"]
    return [*(entrypoint or []), *(cmd or [])]
