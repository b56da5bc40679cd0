"""Which machines a run has had, from when to when, at what price: read from the intents and Join's records.

Called by the status, the budget, the reconciliation and the receipt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from providers.lease.intents import Intent, load_intents
from providers.lease.lease import load_lease
from schemas.errors import LeaseholdError
from schemas.machine import MachineRecord
from stacks.run_folder import RunFolder

_ALIVE = ("created", "adopted")
_GONE = ("deleted", "deleted_extra")
_JOINED, _LEFT = "[0-9]*.json", "*.left"


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One machine; times are seconds since 1970. gone_at None: it may still cost money. offer: key of the plan's offer."""

    index: int
    attempt: int
    cloud: str
    id: str
    name: str
    offer: str
    price_usd_per_hour: float
    created_at: float
    joined_at: float | None = None
    gone_at: float | None = None
    unconfirmed: bool = False

    def usd(self, now: float) -> float:
        """What it has cost until now by its list price."""
        end = self.gone_at if self.gone_at is not None else now
        return max(0.0, end - self.created_at) / 3600 * self.price_usd_per_hour


def read_ledger(folder: RunFolder) -> tuple[LedgerEntry, ...]:
    """All machines of the run in the order of their creation."""
    entries: dict[str, LedgerEntry] = {}
    for intent in load_intents(folder.root).intents:
        _enter(entries, intent)
    joined = {record.id: record for pattern in (_LEFT, _JOINED) for record in _read_records(folder, pattern)}
    return tuple(
        msgspec.structs.replace(entry, joined_at=joined[entry.id].joined_at) if entry.id in joined else entry
        for entry in entries.values()
    )


def read_closed_ledger(folder: RunFolder) -> tuple[LedgerEntry, ...]:
    """The ledger as the lease's proof closes it: what nobody saw go is gone at the latest when the proof was made."""
    proven_at = _find_proof_time(folder)
    return tuple(msgspec.structs.replace(each, gone_at=each.gone_at or proven_at) for each in read_ledger(folder))


def read_joined(folder: RunFolder) -> list[MachineRecord]:
    """The machines that have joined and not left; joined_at is when their record was written."""
    return _read_records(folder, _JOINED)


def _find_proof_time(folder: RunFolder) -> float | None:
    with contextlib.suppress(LeaseholdError, OSError):
        proof = load_lease(folder.root).proof
        return proof.proven_at if proof else None
    return None


def _read_records(folder: RunFolder, pattern: str) -> list[MachineRecord]:
    found = []
    for path in sorted(folder.machines.glob(pattern)):
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
            record = msgspec.json.decode(path.read_bytes(), type=MachineRecord)
            found.append(msgspec.structs.replace(record, joined_at=path.stat().st_mtime))
    return found


def sum_usd(entries: Sequence[LedgerEntry], now: float) -> float:
    """What all machines have cost until now, in USD."""
    return sum(entry.usd(now) for entry in entries)


def _enter(entries: dict[str, LedgerEntry], intent: Intent) -> None:
    if not intent.id:
        return
    if intent.outcome in _ALIVE and intent.id not in entries:
        entries[intent.id] = LedgerEntry(
            index=intent.index,
            attempt=intent.attempt,
            cloud=intent.cloud,
            id=intent.id,
            name=intent.name,
            offer=intent.offer,
            price_usd_per_hour=intent.price_usd_per_hour,
            created_at=intent.time,
        )
    entry = entries.get(intent.id)
    if entry is not None and intent.outcome in _GONE:
        entries[intent.id] = msgspec.structs.replace(entry, gone_at=entry.gone_at or intent.time, unconfirmed=False)
    elif entry is not None and intent.outcome == "unconfirmed":
        entries[intent.id] = msgspec.structs.replace(entry, unconfirmed=True)
