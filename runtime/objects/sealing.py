"""Seals results in S3 while a run goes on: whole lines that are on the disk, in parts, by a thread of its own.

Started by the dispatcher when its manifest names a prefix. What S3 does never stops the batch; another owner does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from runtime.batch.journal import ERROR, OUTPUT, Journal
from runtime.objects.object_store import Patience
from runtime.objects.output_prefix import Claim, OutputPrefix, Owner, OwnerLost, load_claim
from schemas.errors import LeaseholdError
from schemas.events import append_event
from schemas.files import replace_file, sync_folder

SEALED_FILE = "sealed.json"
PART_BYTES = 8 * 1024 * 1024
FIRST_INTERVAL_S, INTERVAL_S = 1.0, 10.0  # it doubles from one to the other, so that short runs are sealed too
LAST_WORD_S = 15.0
# Short: what fails is done again in some seconds, and a dispatcher that ends waits for the request under way.
PATIENCE = Patience(request_s=30, tries=5, total_s=40, longest_pause_s=5)
_LOOK_S = 0.25
_LONGEST_PAUSE_S = 60.0
_log = logging.getLogger("leasehold.sealing")
OpenPrefix = Callable[[str], OutputPrefix]


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """sealed.json: up to which byte of each results file this epoch's parts go."""

    version: int = 1
    mark: str
    offsets: dict[str, int]


class Sealer:
    """One run's parts. `run` works until it is cancelled; `on_lost` is called once when another run owns the prefix."""

    def __init__(
        self, folder: Path, journal: Journal, open_prefix: OpenPrefix, *, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        self.lost: OwnerLost | None = None
        self._folder = folder
        self._journal = journal
        self._open_prefix = open_prefix
        self._on_lost = on_lost
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sealing")
        self._claim: Claim | None = None
        self._prefix: OutputPrefix | None = None
        self._offsets = {OUTPUT: 0, ERROR: 0}
        self._failures = 0
        self._interval_s = FIRST_INTERVAL_S
        self._next_at = time.monotonic() + self._interval_s

    async def run(self) -> None:
        """Seal after each interval, and as soon as there is a full part."""
        while self.lost is None:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            is_full = not self._failures and max(self._count_waiting().values()) >= PART_BYTES
            if now >= self._next_at or is_full:
                await self._try()

    async def finish(self, timeout_s: float = LAST_WORD_S) -> None:
        """Seal the rest of a journal that is closed, bounded: what is not sealed is still in the files."""
        if self.lost is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._try(), timeout_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _try(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._seal)
        except OwnerLost as error:
            self._note("sealing_ended", str(error))
            self.lost = error
            self._on_lost()
        except (LeaseholdError, OSError) as error:
            self._failures += 1
            if self._failures == 1:
                self._note("sealing_failed", f"results wait on this computer: {error}")
        else:
            if self._failures:
                self._note("sealing_resumed", "results go to S3 again")
            self._failures = 0
        self._interval_s = min(2 * self._interval_s, INTERVAL_S if not self._failures else _LONGEST_PAUSE_S)
        self._next_at = time.monotonic() + self._interval_s

    def _seal(self) -> None:
        """In the thread: everything that is on the disk by now."""
        claim, prefix = self._open()
        ends = {name: self._journal.synced_bytes(name) for name in self._offsets}
        for name, end in ends.items():
            path = self._folder / f"{name}.part"
            if self._offsets[name] < end:
                for offset in seal_lines(prefix, claim.owner, name, path, self._offsets[name], end):
                    self._offsets[name] = offset
                    self._save(claim.owner)

    def _open(self) -> tuple[Claim, OutputPrefix]:
        """At the first time: who we are, and what an earlier dispatcher of this folder has sealed."""
        if self._claim is None or self._prefix is None:
            self._claim = load_claim(self._folder)
            self._prefix = self._open_prefix(self._claim.prefix)
            self._offsets = load_sealed(self._folder, self._claim.owner)
        return self._claim, self._prefix

    def _save(self, owner: Owner) -> None:
        save_sealed(self._folder, owner, self._offsets)

    def _count_waiting(self) -> dict[str, int]:
        return {name: self._journal.synced_bytes(name) - offset for name, offset in self._offsets.items()}

    def _note(self, event: str, text: str) -> None:
        _log.warning("%s: %s", event, text)
        with contextlib.suppress(OSError):
            append_event(self._folder / "events.jsonl", "dispatcher", event, text)


def seal_lines(
    prefix: OutputPrefix, owner: Owner, name: str, path: Path, start: int, end: int, *, is_claimed: bool = True
) -> Iterator[int]:
    """Write the whole lines between two offsets of a results file as parts, and give the offset reached after each.

    The epoch is checked before each part, unless it is one that has not been claimed yet.
    """
    with path.open("rb") as file:
        while data := _read_lines(file.fileno(), start, end):
            if is_claimed:
                prefix.raise_if_lost(owner)
            prefix.store.write(prefix.part_key(owner, name, start), data)
            start += len(data)
            yield start


def save_sealed(folder: Path, owner: Owner, offsets: dict[str, int]) -> None:
    replace_file(folder / SEALED_FILE, msgspec.json.encode(Sealed(mark=owner.mark, offsets=offsets)))


def forget_sealed(folder: Path) -> None:
    """Before lines move in the results files: doubled lines in the parts do no harm, missing ones would."""
    (folder / SEALED_FILE).unlink(missing_ok=True)
    sync_folder(folder)


def load_sealed(folder: Path, owner: Owner) -> dict[str, int]:
    """The offsets of this very claim; zeros for any other."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        sealed = msgspec.json.decode((folder / SEALED_FILE).read_bytes(), type=Sealed)
        if sealed.mark == owner.mark:
            return {OUTPUT: sealed.offsets.get(OUTPUT, 0), ERROR: sealed.offsets.get(ERROR, 0)}
    return {OUTPUT: 0, ERROR: 0}


def _read_lines(descriptor: int, start: int, end: int) -> bytes:
    """Up to about PART_BYTES from start, to the end of a line; b"" when there is no whole line."""
    size = PART_BYTES
    while True:
        data = os.pread(descriptor, min(size, end - start), start)
        whole = data.rfind(b"\n") + 1
        if whole or start + len(data) >= end:
            return data[:whole]
        size *= 2
