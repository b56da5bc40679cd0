"""The reaper: finds and ends what outlived its lease, from names alone, without any state of ours. Called by `./inv reap`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from providers.clock import DEFAULT_WAITS, Clock, OnEvent, Waits
from providers.cloud import Cloud, KeyedCloud
from providers.lease.termination import terminate_machine
from schemas.errors import LeaseholdError, RateLimited
from schemas.names import PREFIX, parse_key_name, parse_machine_name

GRACE_S = 600.0
# No lease is so long, and no name of ours is so old: such a name was not made by us, or by a clock that is wrong.
LONGEST_LEASE_S = 60 * 86_400.0
EARLIEST_EXPIRY = 1_700_000_000.0
LARGEST_CLOCK_ERROR_S = 300.0

FetchTime = Callable[[str], float | None]


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A machine or key whose name is ours. id is a key's name; expires_at: seconds since 1970; reason: why it is left."""

    cloud: str
    kind: Literal["machine", "key"]
    id: str
    name: str
    expires_at: int
    price_usd_per_hour: float = 0.0
    reason: str = ""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """expired: to be ended; left_alone: implausible expiry; alive: leases that still run; skipped: cloud to reason."""

    expired: tuple[Leftover, ...] = ()
    left_alone: tuple[Leftover, ...] = ()
    alive: tuple[Leftover, ...] = ()
    skipped: Mapping[str, str] = {}


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """gone: shown to be gone; left: not, each with its reason."""

    gone: tuple[Leftover, ...] = ()
    left: tuple[Leftover, ...] = ()


def find_expired(
    clouds: Mapping[str, Cloud], now: float, *, grace_s: float = GRACE_S, fetch_time: FetchTime | None = None
) -> Findings:
    """List every account and sort what bears our names; a cloud that cannot be asked is skipped with its reason.

    fetch_time gives a cloud's own time (its Date header) or None: a cloud whose time differs by more than five minutes is
    skipped, since a clock that is ahead would end machines of leases that still run.
    """
    found: list[Leftover] = []
    skipped: dict[str, str] = {}
    for name, cloud in clouds.items():
        try:
            trouble = _check_clock(name, now, fetch_time)
            if trouble:
                skipped[name] = trouble
                continue
            found += [*_list_machines(name, cloud), *_list_keys(name, cloud)]
        except LeaseholdError as error:
            skipped[name] = str(error)
    judged = [msgspec.structs.replace(each, reason=_judge(each.expires_at, now, grace_s)) for each in found]
    return Findings(
        expired=tuple(each for each in judged if each.reason == ""),
        left_alone=tuple(each for each in judged if each.reason not in ("", _ALIVE)),
        alive=tuple(each for each in judged if each.reason == _ALIVE),
        skipped=skipped,
    )


def reap(
    findings: Findings,
    clouds: Mapping[str, Cloud],
    *,
    clock: Clock,
    on_event: OnEvent,
    waits: Waits = DEFAULT_WAITS,
    grace_s: float = GRACE_S,
) -> Reaped:
    """End what findings call expired: machines first, then keys; each is looked at once more before it is ended."""
    gone: list[Leftover] = []
    left: list[Leftover] = []
    for each in sorted(findings.expired, key=lambda leftover: leftover.kind == "key"):
        try:
            end = _end_key if each.kind == "key" else _end_machine
            reason = end(each, clouds[each.cloud], clock, waits, grace_s)
        except LeaseholdError as error:
            reason = str(error)
        if reason:
            left.append(msgspec.structs.replace(each, reason=reason))
        else:
            gone.append(each)
        word = f"left: {reason}" if reason else "gone"
        on_event("reaped", f"{each.cloud} {each.kind} {each.id} ({each.name}) is {word}", {"id": each.id})
    return Reaped(gone=tuple(gone), left=tuple(left))


_ALIVE = "its lease has not expired"


def _judge(expires_at: float, now: float, grace_s: float) -> str:
    """Why it must not be ended, "" when it may."""
    if expires_at > now + LONGEST_LEASE_S:
        return (
            f"its expiry is more than {LONGEST_LEASE_S / 86_400:.0f} days away: not made by us, or the clock is wrong"
        )
    if expires_at < EARLIEST_EXPIRY:
        return "its expiry is before the first lease was ever made: not made by us"
    return "" if now > expires_at + grace_s else _ALIVE


def _check_clock(name: str, now: float, fetch_time: FetchTime | None) -> str:
    if now < EARLIEST_EXPIRY:
        return "this computer's clock is years behind: set it, then reap"
    theirs = fetch_time(name) if fetch_time is not None else None
    if theirs is None or abs(theirs - now) <= LARGEST_CLOCK_ERROR_S:
        return ""
    direction = "ahead of" if now > theirs else "behind"
    return f"this computer's clock is {abs(theirs - now):.0f} s {direction} the cloud's: set it, then reap"


def _list_machines(name: str, cloud: Cloud) -> list[Leftover]:
    leftovers = []
    for state in cloud.list_ours(PREFIX):
        parsed = parse_machine_name(state.name)
        if parsed is not None:
            leftovers.append(
                Leftover(
                    cloud=name,
                    kind="machine",
                    id=state.id,
                    name=state.name,
                    expires_at=parsed.expires_at,
                    price_usd_per_hour=state.price_usd_per_hour,
                )
            )
    return leftovers


def _list_keys(name: str, cloud: Cloud) -> list[Leftover]:
    if not isinstance(cloud, KeyedCloud):
        return []
    parsed = [(key, parse_key_name(key)) for key in cloud.list_keys(PREFIX)]
    return [
        Leftover(cloud=name, kind="key", id=key, name=key, expires_at=known.expires_at)
        for key, known in parsed
        if known is not None
    ]


def _end_machine(leftover: Leftover, cloud: Cloud, clock: Clock, waits: Waits, grace_s: float) -> str:
    """Why it is left, "" when it is gone."""
    state = _find_again(leftover, cloud, clock, waits)
    if state is None:
        return ""
    parsed = parse_machine_name(state)
    if parsed is None or state != leftover.name or _judge(parsed.expires_at, clock.now(), grace_s):
        return f"its name is now {state}"
    done = terminate_machine(cloud, leftover.id, clock=clock, deadline_s=waits.give_up_s, poll_s=waits.poll_s)
    return "" if done else f"it is still listed after {waits.give_up_s:.0f} s"


def _find_again(leftover: Leftover, cloud: Cloud, clock: Clock, waits: Waits) -> str | None:
    """The machine's name as it is now, None when it is gone."""
    deadline = clock.monotonic() + waits.give_up_s
    while True:
        try:
            state = cloud.find(leftover.id)
            return None if state is None else state.name
        except RateLimited as error:
            wait_s = max(waits.poll_s, error.retry_after_s)
            if clock.monotonic() + wait_s > deadline:
                raise
            clock.sleep(wait_s)


def _end_key(leftover: Leftover, cloud: Cloud, clock: Clock, waits: Waits, grace_s: float) -> str:
    assert isinstance(cloud, KeyedCloud)
    cloud.remove_key(leftover.name)
    return f"{leftover.name} is still listed" if leftover.name in cloud.list_keys(leftover.name) else ""
