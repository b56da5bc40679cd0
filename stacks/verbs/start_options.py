"""How a run is started and shown, as the command line says it: what `run`, `resume` and `retry` have in common."""

from __future__ import annotations

import msgspec


class StartOptions(msgspec.Struct, frozen=True, kw_only=True):
    """confirm: ask before money is spent. detach: return at once. foreground: stay in this process group. keep: Pulumi's stack."""

    confirm: bool = False
    detach: bool = False
    foreground: bool = False
    keep: bool = False
    as_json: bool = False
