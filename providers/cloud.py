"""What a cloud must do, and the records that go in and out. Every cloud is one file that keeps to this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

Phase = Literal["starting", "ready", "failed", "ending"]


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate of a job asks of a cloud. gpu: a name of our vocabulary, a cloud's exact id, or "" for any.

    min_gb is memory of one GPU in GB, count is GPUs on one machine, regions empty means any. interconnect: how the GPUs of
    one machine must be connected, "" for any. sku_hint: a cloud's exact id whose offers come first, wherever it exists.
    """

    gpu: str = ""
    min_gb: int = 0
    count: int = 1
    tier: str = ""
    regions: tuple[str, ...] = ()
    max_usd_per_hour: float | None = None
    interconnect: Literal["", "nvlink", "pcie"] = ""
    sku_hint: str = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a cloud would rent now. price_usd_per_hour is for the whole machine; stock is the cloud's own word or ""."""

    cloud: str
    gpu: str
    gpu_id: str
    count: int
    memory_gb: int
    tier: str = ""
    region: str = ""
    price_usd_per_hour: float
    available: bool = True
    stock: str = ""
    architecture: Literal["x86_64", "arm64"] = "x86_64"

    @property
    def gpus(self) -> str:
        """What a person calls them: `H100`, or `2 x H100`."""
        return self.gpu if self.count == 1 else f"{self.count} x {self.gpu}"


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one create needs. The private host key is the one secret here: never log a LaunchRequest.

    name: a machine name of schemas.names. expires_at: seconds since 1970. image: container image, or "" for the cloud's
    default. public_key: the per-job client key (`ssh-ed25519 AAAA...`); host_private_key: OpenSSH PEM text.
    heartbeat_timeout_s: the machine ends itself when its heartbeat file is older, 0 = never.
    settings: cloud-specific extras from the job (network volume, file system, ...).
    """

    name: str
    offer: Offer
    public_key: str
    host_private_key: str
    expires_at: int
    image: str = ""
    disk_gb: int = 100
    heartbeat_timeout_s: int = 1800
    settings: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"LaunchRequest(name={self.name!r}, offer={self.offer!r})"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    user: str


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as its cloud describes it. endpoint is None until an address is known, which is not yet "SSH answers".

    failed: it will never become ready and still costs money until terminated. ending: terminate is under way.
    created_at: seconds since 1970, 0 when the cloud does not tell. detail: the cloud's own words, for people.
    """

    cloud: str
    id: str
    name: str
    phase: Phase
    endpoint: Endpoint | None = None
    price_usd_per_hour: float = 0.0
    region: str = ""
    created_at: float = 0.0
    detail: str = ""


class Cloud(Protocol):
    """The six things a cloud does. Every method is synchronous, has its own deadline and raises only our errors."""

    def offers(self, need: Need) -> Sequence[Offer]:
        """What could be rented now for this need, cheapest first (before all others those of its sku_hint); sold-out ones
        with available=False. Raises SpecError for a GPU, region, tier or interconnect that the cloud does not have,
        CredentialError, CloudError."""

    def launch(self, request: LaunchRequest) -> str:
        """Create one machine with a single POST and return its id as soon as there is one. Raises NoCapacity (nothing was
        made), UnclearOutcome (it may exist: the caller must look the name up), other errors (nothing was made)."""

    def find(self, name_or_id: str) -> MachineState | None:
        """The machine of that id or, asked with a machine name of ours, of exactly that name, over all pages; None when it
        is gone or not (yet) to be seen. A machine that the cloud lists as terminated is gone."""

    def terminate(self, id: str) -> None:
        """Ask for deletion; already gone is success. Done only when find says None: returning proves nothing."""

    def list_ours(self, prefix: str) -> Sequence[MachineState]:
        """Every machine whose name starts with prefix, over all pages, ending ones included, gone ones not."""

    def logs(self, id: str) -> str:
        """The boot log as far as the cloud has one (at most 64 KiB, newest last), else ""."""


@runtime_checkable
class KeyedCloud(Protocol):
    """A cloud where a per-job SSH key must stand in the account before a launch (Lambda)."""

    def register_key(self, name: str, public_key: str) -> None:
        """Make sure that the account has this key under this name; equal key and name already there is success."""

    def list_keys(self, prefix: str) -> Sequence[str]:
        """Names of the account's keys that start with prefix."""

    def remove_key(self, name: str) -> None:
        """Delete the key of that name; already gone is success."""


@runtime_checkable
class BillingCloud(Protocol):
    """A cloud that tells what it has billed (RunPod)."""

    def billed_usd(self, id: str, *, start: float, end: float) -> float | None:
        """USD billed for that machine between two times in seconds since 1970; None when it does not say (yet)."""


@runtime_checkable
class TimedCloud(Protocol):
    """A cloud that tells the time, so that reap does not trust a wrong clock of ours."""

    def server_time(self) -> float | None:
        """The cloud's own time now in seconds since 1970; None when it did not say."""
