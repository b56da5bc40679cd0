"""What a release has shown, as a record in lease.json, and the error when it could not be shown. Made by the sweep."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.errors import ReleaseError


class TerminatedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that the sweep ended; asked_at and gone_at (first look without it) are seconds since 1970."""

    id: str
    name: str
    price_usd_per_hour: float
    asked_at: float
    gone_at: float


class CloudProof(msgspec.Struct, frozen=True, kw_only=True):
    """Two consecutive listings without a machine of the lease, begun at these times, none before counted_from."""

    cloud: str
    listings: tuple[float, float]
    counted_from: float
    terminated: tuple[TerminatedMachine, ...] = ()
    keys_removed: tuple[str, ...] = ()


class SkippedCloud(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud that could not be asked, and that no create was ever sent to."""

    cloud: str
    reason: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing whose name starts with prefix is left in any cloud of the lease."""

    version: int = 1
    prefix: str
    revoked_at: float
    proven_at: float
    clouds: tuple[CloudProof, ...]
    skipped: tuple[SkippedCloud, ...] = ()


class LeftMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that may be alive and cost money; id is "" when a create was sent and nobody knows what it made."""

    cloud: str
    id: str
    name: str
    price_usd_per_hour: float


class UnprovenRelease(ReleaseError):
    """Absence could not be shown: `left` are the machines that may be alive, `usd_per_hour` what they cost together."""

    def __init__(self, what: str, *, where: str, fix: str, left: Sequence[LeftMachine]) -> None:
        super().__init__(what, where=where, fix=fix)
        self.left = tuple(left)

    @property
    def usd_per_hour(self) -> float:
        return sum(machine.price_usd_per_hour for machine in self.left)
