"""A machine that has joined a run, as written to machines/<index>.json by Join and read by the dispatcher. No secrets."""

from __future__ import annotations

import msgspec


class MachineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where a machine's SSH and engine answer; host_key is the public key we pinned, times are seconds since 1970."""

    version: int = 1
    index: int
    attempt: int
    cloud: str
    id: str
    name: str
    host: str
    port: int
    user: str
    host_key: str
    engine_port: int
    price_usd_per_hour: float
    created_at: float
    joined_at: float = 0.0
