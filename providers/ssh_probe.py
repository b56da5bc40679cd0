"""Does SSH answer on a machine, with the host key that we made? Called by the Endpoint resource while a machine boots."""

from __future__ import annotations

import subprocess
from typing import Literal

import msgspec

from schemas.ssh import SshTarget, make_ssh_arguments


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """answers: a command ran. wrong_key: something answered with another host key. closed: nothing (yet)."""

    outcome: Literal["answers", "wrong_key", "refused", "closed"]
    detail: str = ""


def probe_ssh(target: SshTarget, *, timeout_s: float = 10) -> ProbeResult:
    """Run `true` over SSH once; never raises for what the machine does."""
    command = [*make_ssh_arguments(target, connect_timeout_s=max(1, int(timeout_s) - 1)), "true"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return ProbeResult(outcome="closed", detail=f"no answer within {timeout_s:.0f} s")
    detail = done.stderr.strip()
    if done.returncode == 0:
        return ProbeResult(outcome="answers")
    if "Host key verification failed" in detail or "IDENTIFICATION HAS CHANGED" in detail:
        return ProbeResult(outcome="wrong_key", detail=detail)
    if "Permission denied" in detail:
        return ProbeResult(outcome="refused", detail=detail)
    return ProbeResult(outcome="closed", detail=detail)
