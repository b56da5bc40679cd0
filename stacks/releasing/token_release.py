"""Releases a lease of which nothing is left here but its token, or the name of one of its machines. Called by `release --force`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Mapping

from providers.clock import SystemClock, ignore_event
from providers.lease.intents import UNKNOWN_LOG
from providers.lease.lease import load_lease
from providers.lease.proof import Proof
from providers.lease.sweep import sweep_lease
from providers.open_clouds import CONSOLES, choose_waits, open_clouds
from providers.registry import CLOUDS
from providers.settings import load_cloud_settings
from schemas.errors import LeaseholdError
from schemas.names import TOKEN_LENGTH, make_prefix, parse_key_name, parse_machine_name
from stacks.planning.plan import RELEASE_DEADLINE_S
from stacks.planning.planning import choose_settle_s
from stacks.releasing.release import Notice
from stacks.run_folder import RunFolder

_TOKEN = re.compile(rf"[a-z0-9]{{{TOKEN_LENGTH}}}")


def find_token(text: str) -> str | None:
    """The token that text is, or that a machine's or key's name holds."""
    parsed = parse_machine_name(text) or parse_key_name(text)
    if parsed is not None:
        return parsed.token
    return text if _TOKEN.fullmatch(text) else None


def find_run_of_token(token: str, runs: Collection[RunFolder]) -> RunFolder | None:
    """The run whose lease it is: with its folder a release knows more."""
    return next((each for each in runs if _read_token(each) == token), None)


def release_token(token: str, *, on_notice: Notice, environ: Mapping[str, str] = os.environ) -> Proof:
    """End every machine of the lease in all clouds that can be asked, wait out the settle window, and prove it.

    Raises ReleaseError while it is not proven. The proof names the clouds that were asked: those without a key are told.
    """
    settings = load_cloud_settings(environ)
    keyless = {"runpod": settings.runpod_api_key is None, "lambda": settings.lambda_api_key is None}
    asked = open_clouds([name for name in CLOUDS if not keyless.get(name)], environ)
    for name in sorted(set(CLOUDS) - set(asked)):
        on_notice(f"{name} is not asked: there is no key for it")
    return sweep_lease(
        make_prefix(token),
        asked,
        planned=tuple(asked),
        log=UNKNOWN_LOG,
        revoked_at=time.time(),
        clock=SystemClock(),
        settle_s=choose_settle_s(asked, environ),
        deadline_s=RELEASE_DEADLINE_S,
        release_command=f"./inv release {token} --force",
        on_event=ignore_event,
        waits=choose_waits(list(asked), environ),
        consoles=CONSOLES,
    )


def _read_token(folder: RunFolder) -> str:
    try:
        return load_lease(folder.root).token
    except LeaseholdError:
        return ""
