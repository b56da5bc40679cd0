"""Tells each machine once a minute that somebody still works with it; without this its dead-man ends it. Run by the replica."""

from __future__ import annotations

import asyncio
import contextlib
import logging

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
    process = await asyncio.create_subprocess_exec(
        *make_ssh_arguments(target), COMMAND,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            _, error = await process.communicate()
    except TimeoutError:
        return f"no answer in {timeout_s:.0f} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode == 0:
        return ""
    return error.decode("utf-8", "replace").strip()[-300:] or f"ssh ended with {process.returncode}"
