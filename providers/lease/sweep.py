"""The release guarantee: after a lease is revoked, end every machine that bears its token and prove that none is left.

Called by the Lease resource's delete, the life cycle and `./inv release`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from providers.clock import DEFAULT_WAITS, Clock, OnEvent, Waits
from providers.closed_cloud import ClosedCloud
from providers.cloud import Cloud
from providers.lease.cloud_sweep import CloudSweep
from providers.lease.intents import UNKNOWN_LOG, IntentLog, find_tokens, fold_histories, load_intents
from providers.lease.lease import (
    LEASE_FILE,
    LeaseRecord,
    NewerLease,
    load_lease,
    mark_released,
    rebuild_lease,
    revoke_lease,
)
from providers.lease.proof import Proof, UnprovenRelease
from providers.lease.termination import confirm_all
from schemas.errors import CredentialError, LeaseholdError, ReleaseError
from schemas.names import make_prefix, parse_machine_name

_TOKEN_IN_RECORD = re.compile(rb'"token"\s*:\s*"([a-z0-9]{12})"')
# A create that was just sent may take its whole timeout, and its answer must reach the disk.
_REVOCATION_MARGIN_S = 30.0


def release_lease(
    run_dir: Path,
    *,
    run: str,
    token: str | None,
    clouds: Mapping[str, Cloud],
    clock: Clock,
    settle_s: float,
    deadline_s: float,
    on_event: OnEvent,
    waits: Waits = DEFAULT_WAITS,
    consoles: Mapping[str, str] | None = None,
) -> Proof:
    """Revoke, sweep, and write the proof to lease.json. Safe to repeat; raises ReleaseError while it is not proven.

    token may be None when the folder still tells it. A folder whose record is lost, or that now belongs to a newer lease,
    costs certainty about what was sent: then every cloud must answer and the whole settle window is waited for.
    """
    lease = _load_or_rebuild(run_dir, run, token, tuple(clouds), clock.now())
    is_of_this_lease = token in (None, lease.token)
    stuck: LeaseholdError | OSError | None = None
    revoked_at, log = clock.now(), UNKNOWN_LOG
    if is_of_this_lease:
        try:
            timeout_s = waits.request_timeout_s + _REVOCATION_MARGIN_S
            revoked_at = revoke_lease(run_dir, clock=clock, timeout_s=timeout_s).revoked_at
        except (LeaseholdError, OSError) as error:
            # Machines cost money whether or not this can be written down.
            stuck = error
        log = load_intents(run_dir)
        log = msgspec.structs.replace(log, damaged=log.damaged + lease.rebuilt)
    proof = sweep_lease(
        make_prefix(token or lease.token),
        clouds,
        planned=lease.clouds,
        log=log,
        revoked_at=revoked_at,
        clock=clock,
        settle_s=settle_s,
        deadline_s=deadline_s,
        release_command=f"./inv release {run}",
        on_event=on_event,
        waits=waits,
        consoles=consoles,
    )
    if isinstance(stuck, LeaseholdError):
        raise _make_stuck_error(run, stuck) from stuck
    if isinstance(stuck, OSError):
        raise _make_unwritten_error(run_dir, run, stuck) from stuck
    if is_of_this_lease:
        try:
            mark_released(run_dir, proof)
        except OSError as error:
            raise _make_unwritten_error(run_dir, run, error) from error
        confirm_all(run_dir, clock)
    on_event("release_proven", f"nothing of run {run} is left", {"prefix": proof.prefix})
    return proof


def sweep_lease(
    prefix: str,
    clouds: Mapping[str, Cloud],
    *,
    planned: Sequence[str],
    log: IntentLog,
    revoked_at: float,
    clock: Clock,
    settle_s: float,
    deadline_s: float,
    release_command: str,
    on_event: OnEvent,
    waits: Waits = DEFAULT_WAITS,
    consoles: Mapping[str, str] | None = None,
) -> Proof:
    """End every machine whose name starts with prefix in the planned clouds and those of the log, and prove it.

    log: UNKNOWN_LOG when there is nothing but a token. deadline_s counts from the moment at which listings count, at the
    earliest from now. release_command and consoles (web page by cloud) are for the error, UnprovenRelease.
    """
    histories = [each for each in fold_histories(log.intents) if each.name.startswith(prefix)]
    names = dict.fromkeys([*planned, *(each.cloud for each in histories), *(clouds if log.damaged else ())])
    if not names:
        raise ReleaseError(
            "no cloud is known that could be asked", where=prefix, fix=f"Run `{release_command}` with credentials set."
        )
    sweeps = [
        CloudSweep(
            name,
            clouds.get(name) or _close(name),
            prefix=prefix,
            histories=[each for each in histories if each.cloud == name],
            is_log_damaged=log.damaged > 0,
            revoked_at=revoked_at,
            clock=clock,
            settle_s=settle_s,
            waits=waits,
            on_event=on_event,
        )
        for name in names
    ]
    _run(sweeps, clock, deadline_s)
    if any(sweep.proof is None and sweep.skipped is None for sweep in sweeps):
        raise _make_unproven(prefix, sweeps, release_command, consoles or {})
    return Proof(
        prefix=prefix,
        revoked_at=revoked_at,
        proven_at=clock.now(),
        clouds=tuple(sweep.proof for sweep in sweeps if sweep.proof is not None),
        skipped=tuple(sweep.skipped for sweep in sweeps if sweep.skipped is not None),
    )


def _run(sweeps: Sequence[CloudSweep], clock: Clock, deadline_s: float) -> None:
    deadline = clock.monotonic() + max(sweep.wait_s for sweep in sweeps) + deadline_s
    while pending := [sweep for sweep in sweeps if not sweep.is_done]:
        for sweep in pending:
            if sweep.next_look <= clock.monotonic():
                sweep.step()
        next_look = min((sweep.next_look for sweep in pending if not sweep.is_done), default=None)
        if next_look is None or next_look > deadline:
            return
        clock.sleep(max(next_look - clock.monotonic(), 0.0))


def _close(name: str) -> ClosedCloud:
    return ClosedCloud(CredentialError(f"there is no client for cloud {name}", where=name, fix="Set its credentials."))


def _load_or_rebuild(run_dir: Path, run: str, token: str | None, clouds: Sequence[str], now: float) -> LeaseRecord:
    try:
        return load_lease(run_dir)
    except NewerLease:
        raise
    except ReleaseError as error:
        log = load_intents(run_dir)
        found = [token] if token is not None else [*find_tokens(log), *_find_token_in_torn_record(run_dir)]
        if len(set(found)) != 1:
            raise _make_tokenless_error(run_dir, found, error) from error
        names = [parse_machine_name(intent.name) for intent in log.intents]
        rebuild_lease(
            run_dir,
            run=run,
            token=found[0],
            clouds=tuple(dict.fromkeys([*clouds, *(intent.cloud for intent in log.intents)])),
            expires_at=max((name.expires_at for name in names if name is not None), default=0),
            now=now,
        )
        return load_lease(run_dir)


def _find_token_in_torn_record(run_dir: Path) -> list[str]:
    path = run_dir / LEASE_FILE
    match = _TOKEN_IN_RECORD.search(path.read_bytes()) if path.is_file() else None
    return [match[1].decode()] if match else []


def _make_tokenless_error(run_dir: Path, found: Sequence[str], error: ReleaseError) -> ReleaseError:
    which = f"it names several leases ({', '.join(sorted(set(found)))})" if found else "no token is left in its folder"
    return ReleaseError(
        f"{error.what}, and {which}",
        where=str(run_dir),
        fix="Give the token itself: `./inv release TOKEN --force`; `./inv reap` ends whatever is past its expiry.",
    )


def _make_stuck_error(run: str, stuck: LeaseholdError) -> ReleaseError:
    return ReleaseError(
        f"a create of run {run} is still under way in another process, so that one more machine may come: {stuck.what}",
        where=stuck.where,
        fix=f"End that process, then run `./inv release {run}`.",
    )


def _make_unwritten_error(run_dir: Path, run: str, error: OSError) -> ReleaseError:
    return ReleaseError(
        f"no machine of run {run} is left to be seen, but its release cannot be written down: {error.strerror}",
        where=str(run_dir / LEASE_FILE),
        fix=f"Make room, then run `./inv release {run}`.",
    )


def _make_unproven(
    prefix: str, sweeps: Sequence[CloudSweep], command: str, consoles: Mapping[str, str]
) -> UnprovenRelease:
    open_sweeps = [sweep for sweep in sweeps if sweep.proof is None and sweep.skipped is None]
    left = [machine for sweep in open_sweeps for machine in sweep.left]
    lines = [
        f"\n    {each.cloud} {each.id or '(id unknown)'} {each.name} at {each.price_usd_per_hour:.2f} USD/h"
        for each in left
    ]
    reasons = [f"\n    {sweep.name}: {sweep.trouble or 'it was not asked twice'}" for sweep in open_sweeps]
    pages = [f"By hand: {consoles[sweep.name]} . " for sweep in open_sweeps if sweep.name in consoles]
    cost = sum(machine.price_usd_per_hour for machine in left)
    return UnprovenRelease(
        f"machines may be alive, their absence could not be shown:{''.join(lines)}{''.join(reasons)}",
        where=prefix,
        fix=f"{''.join(pages)}They may cost {cost:.2f} USD per hour until you run `{command}`",
        left=left,
    )
