"""An emulated machine as the tests and the admin route see it, whichever the cloud."""

from __future__ import annotations

import msgspec


class MachineSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Times are on the cloud's clock, seconds since 1970; ended_at is when it was gone, None while it lives.

    folder is empty for machines without a process (foreign ones, or an emulator without real machines).
    """

    id: str
    name: str
    cloud: str
    status: str
    kind: str
    region: str
    price_usd_per_hour: float
    cost_usd: float
    billed_s: float
    created_at: float
    ended_at: float | None
    is_foreign: bool
    was_touched: bool
    ssh_port: int
    folder: str
    made_by_request: int

    @property
    def is_gone(self) -> bool:
        return self.ended_at is not None
