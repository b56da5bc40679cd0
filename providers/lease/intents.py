"""intents.jsonl: what was going to be made, on disk before each create, and what came of it. Written by acquisition and
by whoever gives a machine back; read by a repeated create and by the sweep."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from providers.cloud import Offer
from providers.lease.lease import INTENTS_FILE
from schemas.errors import LeaseholdError
from schemas.names import parse_machine_name

VERSION = 1
Outcome = Literal[
    "",
    "created",
    "adopted",
    "seen",
    "refused",
    "no_capacity",
    "unclear",
    "absent",
    "unconfirmed",
    "deleted",
    "deleted_extra",
]
_CLEAR = ("created", "refused", "no_capacity")
# Closes a line that a crash cut off: its create was never sent, since its fsync did not return.
_CUT_OFF = b" #cut-off"


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """One line. kind: intent before the create, answer after it, resolved when a later look told more.

    name: the machine's, one create each. attempt: the Machine resource's. time: seconds since 1970. absent: not seen
    until the settle window had passed, which is not yet a proof. seen: its cloud has shown it. unconfirmed: told to go,
    not seen to be gone. deleted: was seen, then gone.
    """

    version: int = VERSION
    time: float
    kind: Literal["intent", "answer", "resolved"]
    name: str
    index: int
    attempt: int
    cloud: str
    offer: str
    price_usd_per_hour: float
    id: str = ""
    outcome: Outcome = ""
    detail: str = ""


class IntentLog(msgspec.Struct, frozen=True, kw_only=True):
    """All lines that can be read; damaged counts what cannot, each of which may hide a create."""

    intents: tuple[Intent, ...] = ()
    damaged: int = 0


UNKNOWN_LOG = IntentLog(damaged=1)
"""For a release that has nothing but a token: any cloud may have been asked."""


class CreateHistory(msgspec.Struct, frozen=True, kw_only=True):
    """All that the log says of one name. outcome "" means that no answer was recorded.

    ids: every machine known under the name; dropped_ids: those told to go; gone_ids: those seen and then gone; seen_ids: those
    that their cloud has shown, so that their absence means something.
    unclear: the answer to the create is lost, so it may have made none, one or two machines.
    """

    name: str
    index: int
    attempt: int
    cloud: str
    offer: str
    price_usd_per_hour: float
    sent_at: float
    ids: tuple[str, ...] = ()
    dropped_ids: tuple[str, ...] = ()
    gone_ids: tuple[str, ...] = ()
    seen_ids: tuple[str, ...] = ()
    outcome: Outcome = ""
    unclear: bool = True

    @property
    def live_ids(self) -> tuple[str, ...]:
        return tuple(id for id in self.ids if id not in self.gone_ids)

    @property
    def may_exist(self) -> bool:
        """Whether a machine of this name may still appear: it was neither refused nor seen and then gone."""
        return self.outcome not in ("refused", "no_capacity", "deleted", "deleted_extra")

    @property
    def is_unresolved(self) -> bool:
        """Whether nobody knows what the create made."""
        return self.unclear and self.outcome in ("", "unclear", "absent")


def make_offer_key(offer: Offer) -> str:
    """What names an offer in the log and in `left_out`: cloud, GPU, count, tier and region."""
    return "/".join([offer.cloud, offer.gpu_id, str(offer.count), offer.tier, offer.region])


def append_intent(run_dir: Path, intent: Intent) -> None:
    """Append one line and wait for the disk; LeaseholdError when that fails, and then nothing may be sent.

    The file is made with the lease: one that is missing is lost, and beginning it anew would hide that.
    """
    path = run_dir / INTENTS_FILE
    line = msgspec.json.encode(intent) + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            whole = (_CUT_OFF + b"\n" if _ends_in_mid_line(descriptor) else b"") + line
            if os.write(descriptor, whole) != len(whole):
                raise OSError(28, "the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LeaseholdError(
            f"cannot record what is about to happen: {error.strerror}",
            where=str(path),
            fix="Make room or give access; without this record no machine is created.",
        ) from error


def append_resolution(
    run_dir: Path, history: CreateHistory, *, outcome: Outcome, now: float, id: str = "", detail: str = ""
) -> None:
    """Append what a later look has told about a create."""
    append_intent(
        run_dir,
        Intent(
            time=now,
            kind="resolved",
            name=history.name,
            index=history.index,
            attempt=history.attempt,
            cloud=history.cloud,
            offer=history.offer,
            price_usd_per_hour=history.price_usd_per_hour,
            id=id,
            outcome=outcome,
            detail=detail,
        ),
    )


def record_seen(run_dir: Path, *, name: str, id: str, now: float) -> None:
    """Write down that a cloud has shown a machine: from then on its absence means that it is gone."""
    history = find_history(run_dir, name)
    if history is not None and id not in history.seen_ids:
        append_resolution(run_dir, history, outcome="seen", now=now, id=id)


def find_history(run_dir: Path, name: str) -> CreateHistory | None:
    """All that the log says of one name, None when it does not know it."""
    return next((each for each in fold_histories(load_intents(run_dir).intents) if each.name == name), None)


def load_intents(run_dir: Path) -> IntentLog:
    """Read the log; a missing file counts as damage, since an open lease always has one."""
    try:
        data = (run_dir / INTENTS_FILE).read_bytes()
    except FileNotFoundError:
        return UNKNOWN_LOG
    *lines, last = data.split(b"\n")
    read = [_read_line(line) for line in lines if line and not line.endswith(_CUT_OFF)]
    intents = [intent for intent in read if intent is not None]
    damaged = len(read) - len(intents)
    unfinished = _read_line(last) if last else None
    return IntentLog(intents=(*intents, *([unfinished] if unfinished else [])), damaged=damaged)


def fold_histories(intents: Iterable[Intent]) -> tuple[CreateHistory, ...]:
    """One history a name, in the order of the first line of each."""
    histories: dict[str, CreateHistory] = {}
    for intent in intents:
        before = histories.get(intent.name)
        histories[intent.name] = _go_on(before or _begin(intent), intent)
    return tuple(histories.values())


def unresolved(run_dir: Path) -> tuple[CreateHistory, ...]:
    """Creates of which nobody knows what they made: no answer, a lost one, or nothing seen so far."""
    return tuple(each for each in fold_histories(load_intents(run_dir).intents) if each.is_unresolved)


def next_try(log: IntentLog, index: int) -> int:
    """The number that makes the next name of this index new, even if damaged lines hide some."""
    names = [parse_machine_name(intent.name) for intent in log.intents]
    used = [name.attempt for name in names if name is not None and name.index == index]
    return max(used, default=0) + 1 + log.damaged


def find_tokens(log: IntentLog) -> tuple[str, ...]:
    """The tokens that the log's names bear: what a release goes by when lease.json is lost."""
    names = [parse_machine_name(intent.name) for intent in log.intents]
    return tuple(dict.fromkeys(name.token for name in names if name is not None))


def _ends_in_mid_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _read_line(line: bytes) -> Intent | None:
    try:
        intent = msgspec.json.decode(line, type=Intent)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return intent if intent.version == VERSION else None


def _begin(intent: Intent) -> CreateHistory:
    return CreateHistory(
        name=intent.name,
        index=intent.index,
        attempt=intent.attempt,
        cloud=intent.cloud,
        offer=intent.offer,
        price_usd_per_hour=intent.price_usd_per_hour,
        sent_at=intent.time,
    )


def _go_on(before: CreateHistory, intent: Intent) -> CreateHistory:
    id = (intent.id,) if intent.id else ()
    is_dropped = intent.outcome in ("unconfirmed", "deleted", "deleted_extra")
    after = msgspec.structs.replace(
        before,
        ids=_join(before.ids, id),
        dropped_ids=_join(before.dropped_ids, id if is_dropped else ()),
        gone_ids=_join(before.gone_ids, id if is_dropped and intent.outcome != "unconfirmed" else ()),
        seen_ids=_join(before.seen_ids, id if intent.outcome in ("seen", "adopted") else ()),
        unclear=before.unclear and not (intent.kind == "answer" and intent.outcome in _CLEAR),
    )
    # One of two twins that is told to go does not change what became of the name.
    keeps_outcome = intent.outcome in ("", "seen") or (
        is_dropped and (intent.outcome == "unconfirmed" or bool(after.live_ids))
    )
    return after if keeps_outcome else msgspec.structs.replace(after, outcome=intent.outcome)


def _join(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*old, *new]))
