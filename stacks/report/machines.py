"""The machines of a run as bars in time: boot, work, idle, lost, and what each cost; and what could not be had.

Called by stacks.report.data, from the ledger, the lease's proof and the events.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from providers.lease.intents import Intent, load_intents
from schemas.events import read_events
from schemas.failure import Failure, read_failures
from schemas.status import Event, Progress
from stacks.run_folder import RunFolder
from stacks.runs.ledger import LedgerEntry, read_closed_ledger
from stacks.runs.receipt import Receipt

_NOT_HAD = {
    "no_capacity": "no capacity",
    "refused": "refused",
    "unclear": "the answer was lost",
    "absent": "not seen after a lost answer",
}
SegmentKind = Literal["boot", "work", "idle", "lost"]


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a machine's time; seconds since 1970. lost: from its death until it was gone."""

    kind: SegmentKind
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


class MachineBar(msgspec.Struct, frozen=True, kw_only=True):
    """One machine; end: `gone` (seen or proven), `unconfirmed` (told to go), or `there`. death says why it was lost."""

    label: str
    index: int
    cloud: str
    id: str
    name: str
    offer: str
    usd_per_hour: float
    usd: float
    billed_usd: float | None = None
    joined: bool
    end: Literal["gone", "unconfirmed", "there"]
    death: str = ""
    segments: tuple[Segment, ...]

    def seconds(self, kind: SegmentKind) -> float:
        return sum(each.seconds for each in self.segments if each.kind == kind)


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What did not work on the way to machines, with how often; time is that of the first, seconds since 1970."""

    time: float
    what: str
    detail: str
    count: int = 1


class MachineFinder:
    """Which machine of the ledger an index meant at a moment: the last one that had joined by then."""

    def __init__(self, entries: Sequence[LedgerEntry]) -> None:
        self._places: dict[int, list[tuple[float, int]]] = {}
        for place, entry in enumerate(entries):
            self._places.setdefault(entry.index, []).append((entry.joined_at or entry.created_at, place))

    def find(self, index: int, time: float) -> int:
        """Its place in the ledger; -1 - index for one that the ledger does not know."""
        places = self._places.get(index)
        if not places:
            return -1 - index
        return next((place for joined_at, place in reversed(places) if joined_at <= time), places[0][1])


def load_entries(folder: RunFolder) -> tuple[LedgerEntry, ...]:
    """The ledger by index and time, closed by the lease's proof."""
    return tuple(sorted(read_closed_ledger(folder), key=lambda entry: (entry.index, entry.created_at)))


def make_bars(
    entries: Sequence[LedgerEntry],
    *,
    progress: Progress | None,
    events: Sequence[Event],
    receipt: Receipt | None,
    offers: Mapping[str, str],
    now: float,
) -> tuple[MachineBar, ...]:
    """The machines in the order of the entries; offers: what each of the plan's offers is called."""
    deaths = {str(each.data.get("id")): each for each in events if each.event == "machine_died"}
    billed = {each.id: each.billed_usd for each in receipt.machines} if receipt else {}
    labels = make_labels(entries)
    return tuple(
        MachineBar(
            label=labels[place],
            index=entry.index,
            cloud=entry.cloud,
            id=entry.id,
            name=entry.name,
            offer=offers.get(entry.offer, entry.offer),
            usd_per_hour=entry.price_usd_per_hour,
            usd=entry.usd(now),
            billed_usd=billed.get(entry.id),
            joined=entry.joined_at is not None,
            end="gone" if entry.gone_at is not None else "unconfirmed" if entry.unconfirmed else "there",
            death=deaths[entry.id].message.partition("died: ")[2] if entry.id in deaths else "",
            segments=_make_segments(entry, progress, _parse_time(deaths.get(entry.id)), now),
        )
        for place, entry in enumerate(entries)
    )


def make_labels(entries: Sequence[LedgerEntry]) -> tuple[str, ...]:
    """`0`, and `0 (2nd)` for the machine that took its place."""
    seen: dict[int, int] = {}
    labels = []
    for entry in entries:
        number = seen[entry.index] = seen.get(entry.index, 0) + 1
        labels.append(str(entry.index) if number == 1 else f"{entry.index} ({_make_ordinal(number)})")
    return tuple(labels)


def read_all_events(folder: RunFolder) -> tuple[Event, ...]:
    return tuple(event for event, _ in read_events(folder.events))


def list_troubles(folder: RunFolder) -> tuple[Trouble, ...]:
    """Creates that made no machine, and steps that failed, those that are alike together."""
    found = [_describe_create(each) for each in load_intents(folder.root).intents if each.outcome in _NOT_HAD]
    found += [_describe_failure(each) for each in read_failures(folder.failures)]
    together: dict[tuple[str, str], Trouble] = {}
    for trouble in sorted(found, key=lambda each: each.time):
        key = (trouble.what, trouble.detail)
        before = together.get(key)
        together[key] = msgspec.structs.replace(before, count=before.count + 1) if before else trouble
    return tuple(together.values())


def parse_time(text: str) -> float | None:
    """Seconds since 1970 of a time as status and events have it; None for what is none."""
    with contextlib.suppress(ValueError):
        return datetime.datetime.fromisoformat(text).timestamp()
    return None


def _parse_time(event: Event | None) -> float | None:
    return parse_time(event.time) if event else None


def _make_segments(
    entry: LedgerEntry, progress: Progress | None, died_at: float | None, now: float
) -> tuple[Segment, ...]:
    start, end = entry.created_at, max(entry.gone_at or now, entry.created_at)
    died = min(max(died_at, start), end) if died_at is not None else end
    joined = min(max(entry.joined_at, start), died) if entry.joined_at is not None else died
    ended_at = progress.ended_at if progress and progress.ended_at is not None else died
    last = min(max(ended_at, joined), died)
    cuts: list[tuple[SegmentKind, float, float]] = [
        ("boot", start, joined),
        ("work", joined, last),
        ("idle", last, died),
        ("lost", died, end),
    ]
    return tuple(Segment(kind=kind, start=begin, end=stop) for kind, begin, stop in cuts if stop > begin)


def _describe_create(intent: Intent) -> Trouble:
    what = f"create of {intent.offer}: {_NOT_HAD[intent.outcome]}"
    return Trouble(time=intent.time, what=what, detail=intent.detail)


def _describe_failure(failure: Failure) -> Trouble:
    return Trouble(time=parse_time(failure.time) or 0.0, what=f"{failure.step}: {failure.kind}", detail=failure.message)


def _make_ordinal(number: int) -> str:
    is_teen = number // 10 % 10 == 1
    return f"{number}{'th' if is_teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
