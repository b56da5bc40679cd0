"""Tells each machine once a minute that somebody still works with it; without this its dead-man ends it. Run by the replica."""

from __future__ import annotations

import asyncio
import logging

from runtime.engines.child import Child
from schemas.ssh import SshTarget, make_ssh_arguments

INTERVAL_S = 60.0
RETRY_S = 10.0
TIMEOUT_S = 20.0
COMMAND = 'mkdir -p "$HOME/.leasehold" && touch "$HOME/.leasehold/heartbeat"'
_log = logging.getLogger("leasehold.heartbeat")


async def beat(target: SshTarget, *, interval_s: float = INTERVAL_S) -> None:
    """Send the first heartbeat at once and one each interval after; ends only by being cancelled."""
    while True:
        message = await send_heartbeat(target)
        if message:
            _log.warning("no heartbeat to %s: %s", target.alias, message)
        await asyncio.sleep(RETRY_S if message else interval_s)


async def send_heartbeat(target: SshTarget, *, timeout_s: float = TIMEOUT_S) -> str:
    """One heartbeat over a connection of its own; "" when it arrived, else why not."""
    async with Child([*make_ssh_arguments(target), COMMAND]) as child:
        try:
            async with asyncio.timeout(timeout_s):
                code = await child.wait()
        except TimeoutError:
            return f"no answer in {timeout_s:.0f} s"
        if code == 0:
            return ""
        return " ".join(child.read_messages())[-300:] or f"ssh ended with {code}"
