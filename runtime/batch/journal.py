"""The results files, which are also the record of what is done: appended in groups, synced once a second, renamed at the end.

Written by the dispatcher alone. A request's line is written at most once, whatever happens to its answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime.batch.ordering import order_file
from runtime.batch.recovery import Tally, read_finished, recover_file
from runtime.batch.results import ResultWriter
from runtime.batch.tokens import NO_TOKENS, Tokens
from schemas.files import sync_folder

OUTPUT, ERROR = "output.jsonl", "error.jsonl"
GROUP_DELAY_S = 0.05
GROUP_BYTES = 1024 * 1024
SYNC_DELAY_S = 1.0
SYNC_BYTES = 64 * 1024 * 1024
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class Journal:
    """output.jsonl and error.jsonl of one run in `folder`; both are `.part` until finish().

    before_cut is called before recovery takes damage out of them, which moves the lines behind it.
    `failure` is a future that gets the OSError when a write or a sync fails; from then on nothing more is written.
    Needs a running event loop.
    """

    def __init__(
        self, folder: Path, writer: ResultWriter, *, lines: int, before_cut: Callable[[], None] = lambda: None
    ) -> None:
        self.writer = writer
        self.lines = lines
        self.done = bytearray(lines)
        self.undone = lines
        self.tally = Tally()
        self.stop_code = ""
        self._folder = folder
        self._before_cut = before_cut
        self._files = (_ResultsFile(folder / OUTPUT), _ResultsFile(folder / ERROR))
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[OSError] = self._loop.create_future()
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="journal-sync")
        self._buffered = self._unsynced = 0
        self._group_timer: asyncio.TimerHandle | None = None
        self._sync_timer: asyncio.TimerHandle | None = None
        self._syncing: asyncio.Future[None] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether an earlier dispatcher has put the results in their final place (the output is renamed last)."""
        return self._files[0].final.exists()

    def recover(self) -> None:
        """Learn what is done from the files that are there, and open them for more; raises OSError."""
        if self.is_finished:
            self._read_finished()
        else:
            self._recover_parts()
        self.undone = self.done.count(0)

    def add(self, line: int, data: bytes, *, failed: bool, tokens: Tokens = NO_TOKENS) -> bool:
        """Append the result of a request; False (and nothing happens) if it has one already."""
        if self.done[line]:
            return False
        self.done[line] = 1
        self.undone -= 1
        self.tally.count(failed=failed, tokens=tokens)
        self._files[failed].buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= GROUP_BYTES:
            self.flush()
        elif self._group_timer is None:
            self._group_timer = self._loop.call_later(GROUP_DELAY_S, self.flush)
        return True

    def synced_bytes(self, name: str) -> int:
        """How much of a results file is on the disk for sure; it may end in the middle of a line."""
        return next(file.synced_bytes for file in self._files if file.final.name == name)

    def flush(self) -> None:
        """Hand everything to the operating system: from here on a kill loses nothing."""
        if self._group_timer is not None:
            self._group_timer.cancel()
            self._group_timer = None
        if self.failure.done() or not self._buffered:
            return
        try:
            for file in self._files:
                file.write()
        except OSError as error:
            self._fail(error)
            return
        self._unsynced += self._buffered
        self._buffered = 0
        if self._unsynced >= SYNC_BYTES:
            self._start_sync()
        elif self._unsynced and self._sync_timer is None:
            self._sync_timer = self._loop.call_later(SYNC_DELAY_S, self._start_sync)

    async def finish(self, *, ordered: bool) -> None:
        """Put the files in their final place. error.jsonl is there only if it has lines; output.jsonl always is."""
        await self.close()
        if self.failure.done():
            return
        output, error = self._files
        await self._loop.run_in_executor(None, self._rename, error, ordered)
        await self._loop.run_in_executor(None, self._rename, output, ordered)

    async def close(self) -> None:
        """Write and sync what is there; the files stay `.part` and can be recovered. Safe to call twice."""
        self.flush()
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        if self._syncing is not None:
            await asyncio.wait([self._syncing])
        for file in self._files:
            if file.is_open:
                await self._close(file)
        self._syncer.shutdown(wait=False)

    async def _close(self, file: _ResultsFile) -> None:
        try:
            await self._loop.run_in_executor(self._syncer, file.close)
        except OSError as error:
            self._fail(error)

    def _recover_parts(self) -> None:
        for file in self._files:
            if file.final.exists():  # the last dispatcher died between the two renames
                file.final.replace(file.part)
            if file.part.exists():
                recover_file(file.part, self.writer, done=self.done, tally=self.tally, before_cut=self._before_cut)
            file.open()
        sync_folder(self._folder)

    def _read_finished(self) -> None:
        for file in self._files:
            if file.final.exists():
                code = read_finished(file.final, self.writer, done=self.done, tally=self.tally)
                self.stop_code = code or self.stop_code

    def _rename(self, file: _ResultsFile, ordered: bool) -> None:
        if file is self._files[1] and file.part.stat().st_size == 0:
            file.part.unlink()
            return
        if ordered:
            order_file(file.part, self.writer)
        file.part.replace(file.final)
        sync_folder(self._folder)

    def _start_sync(self) -> None:
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        if self._syncing is not None or self.failure.done():
            return
        self._unsynced = 0
        self._syncing = self._loop.run_in_executor(self._syncer, self._sync)
        self._syncing.add_done_callback(self._end_sync)

    def _sync(self) -> None:
        for file in self._files:
            file.sync()

    def _end_sync(self, future: asyncio.Future[None]) -> None:
        self._syncing = None
        error = future.exception()
        if isinstance(error, OSError):
            self._fail(error)
        elif self._unsynced and self._sync_timer is None:
            self._sync_timer = self._loop.call_later(SYNC_DELAY_S, self._start_sync)

    def _fail(self, error: OSError) -> None:
        if not self.failure.done():
            self.failure.set_result(error)


class _ResultsFile:
    """One of the two files: its names, its descriptor, what waits to be written."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.part = final.with_name(final.name + ".part")
        self.buffer: list[bytes] = []
        self.synced_bytes = 0
        self._descriptor = -1
        self._is_synced = True

    def open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.part, flags, 0o644)
        # Whether a dispatcher that was killed had synced it, nobody knows.
        self._is_synced = os.fstat(self._descriptor).st_size == 0

    def write(self) -> None:
        if not self.buffer:
            return
        data = memoryview(b"".join(self.buffer))
        self.buffer.clear()
        self._is_synced = False
        before = os.fstat(self._descriptor).st_size
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)  # a full disk leaves half a line
            raise

    def sync(self) -> None:
        if not self._is_synced:
            self._is_synced = True
            self._sync_now()

    def _sync_now(self) -> None:
        size = os.fstat(self._descriptor).st_size
        _sync_data(self._descriptor)
        self.synced_bytes = size

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def close(self) -> None:
        try:
            if not self._is_synced:
                self._sync_now()
        finally:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
