"""The lease: the right to have machines until an expiry, in lease.json. Opened by the Lease resource, held by creates,
revoked by every release.

A create holds lease.lock shared from "the lease is open" until its answer is on disk. A revocation first writes
`revoked`, so that nobody new starts, then takes the lock exclusively, so that nobody is still under way.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from providers.clock import Clock
from providers.lease.proof import Proof
from schemas.errors import CancelledError, ExpiredError, LeaseholdError, ReleaseError
from schemas.files import create_file, hold_lock, replace_file
from schemas.names import TOKEN_LENGTH

VERSION = 1
LEASE_FILE = "lease.json"
LOCK_FILE = "lease.lock"
INTENTS_FILE = "intents.jsonl"
UNCONFIRMED_FILE = "unconfirmed.jsonl"
_WRITE_LOCK_FILE = "lease.write.lock"
_WRITE_LOCK_S = 30.0
_SHARED_LOCK_S = 30.0
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """lease.json. Times are seconds since 1970; clouds are all that a machine may have been asked of.

    sealed: no create was under way any more at revoked_at. proof: set with state `released`. rebuilt: the record was
    lost and made anew for a release, so that nothing is known of the creates but what the log still says.
    """

    version: int = VERSION
    run: str
    token: str
    expires_at: int
    state: Literal["open", "revoked", "released"] = "open"
    clouds: tuple[str, ...]
    created_at: float
    revoked_at: float = 0.0
    sealed: bool = False
    rebuilt: bool = False
    proof: Proof | None = None


class _Versioned(msgspec.Struct):
    version: int


def make_random_token() -> str:
    """Twelve random characters of [a-z0-9]."""
    return "".join(secrets.choice(_LETTERS) for _ in range(TOKEN_LENGTH))


def open_lease(
    run_dir: Path,
    *,
    run: str,
    expires_at: int,
    clouds: Sequence[str],
    now: float,
    make_token: Callable[[], str] = make_random_token,
) -> LeaseRecord:
    """Make the run's lease, or return the one that is open. A proven release makes room for a new lease (the old files
    stay beside it); a revocation that is not proven raises CancelledError, a lost record ReleaseError."""
    with _hold_for_writing(run_dir):
        record = _load_if_there(run_dir)
        if record is not None and record.run != run:
            raise LeaseholdError(
                f"this folder belongs to run {record.run}, not {run}",
                where=str(run_dir / LEASE_FILE),
                fix="Give the run another name, or another LEASEHOLD_HOME.",
            )
        if record is not None and record.state == "open":
            return _widen(run_dir, record, clouds)
        if record is not None and record.state == "revoked":
            raise _make_revoked_error(run_dir, record)
        if record is not None:
            _archive(run_dir, record.token)
        elif _has_content(run_dir / INTENTS_FILE):
            raise _make_lost_error(run_dir, "is missing, but machines have been asked for")
        # An intents file from the first moment on, so that a missing one is a loss and never "nothing was made".
        create_file(run_dir / INTENTS_FILE, b"", mode=0o600)
        made = LeaseRecord(
            run=run, token=make_token(), expires_at=expires_at, clouds=tuple(dict.fromkeys(clouds)), created_at=now
        )
        _write(run_dir, made)
        return made


def load_lease(run_dir: Path) -> LeaseRecord:
    """Read lease.json; ReleaseError when it is missing, torn, or written by a newer version."""
    record = _load_if_there(run_dir)
    if record is None:
        raise _make_lost_error(run_dir, "is missing")
    return record


def is_open(run_dir: Path) -> bool:
    """Whether machines may still be made; polled by every create that waits."""
    return load_lease(run_dir).state == "open"


def require_open(run_dir: Path, *, now: float) -> LeaseRecord:
    """The open lease; CancelledError when it was revoked, ExpiredError past its expiry."""
    record = load_lease(run_dir)
    if record.state != "open":
        raise _make_revoked_error(run_dir, record)
    if now >= record.expires_at:
        raise ExpiredError(
            "the lease has expired: no more machines are made",
            where=str(run_dir / LEASE_FILE),
            fix=f"Free what is left with `./inv release {record.run}`; raise limits.max_hours for the next run.",
        )
    return record


@contextlib.contextmanager
def hold_open_lease(run_dir: Path, clock: Clock) -> Iterator[LeaseRecord]:
    """Keep revocation waiting while a create is under way; raises as require_open does, before anything is sent."""
    with hold_lock(run_dir / LOCK_FILE, exclusive=False, timeout_s=_SHARED_LOCK_S):
        yield require_open(run_dir, now=clock.now())


def hold_index(run_dir: Path, index: int, *, timeout_s: float) -> contextlib.AbstractContextManager[None]:
    """One acquisition an index at a time, since a provider process may outlive the engine that is started anew."""
    return hold_lock(run_dir / f"index-{index}.lock", exclusive=True, timeout_s=timeout_s)


def revoke_lease(run_dir: Path, *, clock: Clock, timeout_s: float) -> LeaseRecord:
    """End the right to make machines and wait until no create is under way (at most timeout_s: choose more than a
    create's own request timeout). Safe to repeat; returns the record with revoked_at."""
    with _hold_for_writing(run_dir):
        record = load_lease(run_dir)
        if record.state == "open":
            record = _change(run_dir, record, state="revoked", revoked_at=clock.now())
    if record.sealed:
        return record
    with hold_lock(run_dir / LOCK_FILE, exclusive=True, timeout_s=timeout_s), _hold_for_writing(run_dir):
        record = load_lease(run_dir)
        # The moment that counts is now: the last create may have been sent just before this lock was had.
        return record if record.sealed else _change(run_dir, record, revoked_at=clock.now(), sealed=True)


def mark_released(run_dir: Path, proof: Proof) -> LeaseRecord:
    """Keep the proof; only a revoked lease can be released."""
    with _hold_for_writing(run_dir):
        record = load_lease(run_dir)
        if record.state == "open" or not record.sealed:
            raise ReleaseError(
                "a lease must be revoked before it is released",
                where=str(run_dir / LEASE_FILE),
                fix=f"Run `./inv release {record.run}`.",
            )
        return _change(run_dir, record, state="released", proof=proof)


def rebuild_lease(run_dir: Path, *, run: str, token: str, clouds: Sequence[str], expires_at: int, now: float) -> None:
    """Put a revoked record in the place of a missing or torn one, so that a release can go on; the torn one is kept."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with _hold_for_writing(run_dir):
        path = run_dir / LEASE_FILE
        if path.exists():
            path.replace(path.with_name(f"{LEASE_FILE}.damaged"))
        create_file(run_dir / INTENTS_FILE, b"", mode=0o600)
        _write(
            run_dir,
            LeaseRecord(
                run=run,
                token=token,
                expires_at=expires_at,
                state="revoked",
                clouds=tuple(clouds),
                created_at=now,
                revoked_at=now,
                rebuilt=True,
            ),
        )


def _load_if_there(run_dir: Path) -> LeaseRecord | None:
    path = run_dir / LEASE_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _make_lost_error(run_dir, f"cannot be read ({error.strerror})") from error
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version > VERSION:
            raise NewerLease(
                f"this lease was written by a newer Leasehold (version {version}, this one knows {VERSION})",
                where=str(path),
                fix="Release it with the Leasehold that made it.",
            )
        return msgspec.json.decode(data, type=LeaseRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _make_lost_error(run_dir, f"is torn ({error})") from error


class NewerLease(ReleaseError):
    """A record that only a newer version understands; never to be overwritten."""


def _make_lost_error(run_dir: Path, what: str) -> ReleaseError:
    return ReleaseError(
        f"the record of the lease {what}; machines of it may be alive",
        where=str(run_dir / LEASE_FILE),
        fix=f"Run `./inv release {run_dir.name} --force`: it takes the token from {INTENTS_FILE} or from the state.",
    )


def _make_revoked_error(run_dir: Path, record: LeaseRecord) -> CancelledError:
    word = "released" if record.state == "released" else "revoked"
    return CancelledError(
        f"the lease of run {record.run} was {word}: no machine is made under it",
        where=str(run_dir / LEASE_FILE),
        fix=f"Finish its release with `./inv release {record.run}`, then start again.",
    )


def _widen(run_dir: Path, record: LeaseRecord, clouds: Sequence[str]) -> LeaseRecord:
    every = tuple(dict.fromkeys([*record.clouds, *clouds]))
    return record if every == record.clouds else _change(run_dir, record, clouds=every)


def _archive(run_dir: Path, token: str) -> None:
    """Lay a released lease's files aside; lease.json stays until the new one replaces it, so a crash repeats this."""
    replace_file(run_dir / f"lease-{token}.json", (run_dir / LEASE_FILE).read_bytes(), mode=0o600, durable=True)
    for name in (INTENTS_FILE, UNCONFIRMED_FILE):
        path = run_dir / name
        if _has_content(path):
            path.replace(path.with_name(f"{path.stem}-{token}.jsonl"))


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _change(run_dir: Path, record: LeaseRecord, **changes: object) -> LeaseRecord:
    changed = msgspec.structs.replace(record, **changes)
    _write(run_dir, changed)
    return changed


def _write(run_dir: Path, record: LeaseRecord) -> None:
    data = msgspec.json.format(msgspec.json.encode(record), indent=2)
    replace_file(run_dir / LEASE_FILE, data + b"\n", mode=0o600, durable=True)


def _hold_for_writing(run_dir: Path) -> contextlib.AbstractContextManager[None]:
    return hold_lock(run_dir / _WRITE_LOCK_FILE, exclusive=True, timeout_s=_WRITE_LOCK_S)
