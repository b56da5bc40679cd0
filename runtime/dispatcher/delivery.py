"""Sends everything that has no result yet: queue, sender, fleet and their watchers, from the first join to the last answer."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from runtime.batch.input_index import BatchInput
from runtime.batch.journal import Journal
from runtime.batch.prefix_order import order_by_prefix
from runtime.dispatcher.fleet import Fleet
from runtime.dispatcher.manifest import Manifest
from runtime.dispatcher.membership import Membership
from runtime.dispatcher.progress import Reporter, report
from runtime.dispatcher.request_queue import RequestQueue
from runtime.dispatcher.sender import Sender
from runtime.dispatcher.stop_signal import StopSignal
from schemas.errors import LeaseholdError, RequestsFailed, SpecError

GRACE_S = 10.0
INPUT_WATCH_S = 1.0


class Delivery:
    """One run() from start to end; what is written when it returns or raises stays written."""

    def __init__(
        self, manifest: Manifest, batch: BatchInput, journal: Journal, reporter: Reporter, stop: StopSignal
    ) -> None:
        self._deadline = manifest.deadline
        self._batch = batch
        self._journal = journal
        self._reporter = reporter
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        order = order_by_prefix(batch) if manifest.options.order == "prefix" else None
        self._queue = RequestQueue(journal.done, on_due=self._pump, length=batch.length, order=order)
        self._sender = Sender(
            batch, journal, self._queue, run=manifest.run, options=manifest.options, durations=reporter.durations
        )
        self._fleet = Fleet(self._queue, self._sender, hedge=manifest.options.hedge)
        self._membership = Membership(manifest, self._fleet, key=_read_key(manifest))

    async def run(self) -> None:
        """Returns when every request has its result or a stop was asked for; raises what makes it impossible to go on."""
        reporting = self._loop.create_task(report(self._reporter, self._refresh))
        if self._deadline:
            self._loop.call_later(max(0.0, self._deadline - time.time()), self._stop.ask, "batch_expired")
        watchers = [
            self._loop.create_task(work)
            for work in (self._membership.follow(), self._fleet.tick(), self._watch_input())
        ]
        grace_s = 0.0
        try:
            await self._wait(watchers)
            grace_s = GRACE_S
        finally:
            for task in watchers:
                task.cancel()
            await asyncio.wait(watchers)
            self._reporter.state = "draining"
            await self._fleet.stop(grace_s=grace_s, is_urgent=self._stop.urgent)
            reporting.cancel()
            await asyncio.wait([reporting])
            self._refresh()

    async def _wait(self, watchers: list[asyncio.Task[None]]) -> None:
        ends = [self._loop.create_task(event.wait()) for event in (self._sender.finished, self._stop.asked)]
        faults: list[asyncio.Future[Any]] = [self._journal.failure, self._fleet.fault, self._sender.early_stop.reason]
        try:
            await asyncio.wait([*ends, *faults, *watchers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        raise_if_unwritten(self._journal)
        if self._fleet.fault.done():
            raise self._fleet.fault.result()
        if self._sender.early_stop.reason.done():
            fix = "See error.jsonl.part, correct the job or its template, and start a new run."
            raise RequestsFailed(self._sender.early_stop.reason.result(), where=str(self._batch.path), fix=fix)
        for task in watchers:
            if task.done():
                task.result()

    def _pump(self) -> None:
        self._fleet.pump()

    async def _watch_input(self) -> None:
        while True:
            self._batch.raise_if_changed()
            await asyncio.sleep(INPUT_WATCH_S)

    def _refresh(self) -> None:
        reporter, fleet = self._reporter, self._fleet
        if reporter.state == "waiting" and fleet.has_ready:
            reporter.state = "running"
        if fleet.has_ready:
            reporter.message = ""
        else:
            count = len(fleet.replicas)
            reporter.message = f"none of {count} machines answers now" if count else "no machine has joined yet"
        reporter.replicas = fleet.replicas
        reporter.redone = self._sender.redone
        reporter.hedged = fleet.hedged
        reporter.retrying = self._queue.waiting
        if reporter.first_sent_at is None and self._sender.first_sent_at is not None:
            reporter.first_sent_at = time.time() - (self._loop.time() - self._sender.first_sent_at)


def raise_if_unwritten(journal: Journal) -> None:
    """Raise LeaseholdError when the results can no longer be written."""
    if journal.failure.done():
        error = journal.failure.result()
        fix = "Make room or repair the disk, then start the dispatcher again: what is written is kept."
        raise LeaseholdError(f"cannot write the results: {error.strerror or error}", fix=fix) from error


def _read_key(manifest: Manifest) -> str:
    if manifest.engine_key_env:
        return _check_key(os.environ.get(manifest.engine_key_env, ""), where=manifest.engine_key_env)
    if not manifest.engine_key_file:
        return ""
    try:
        key = Path(manifest.engine_key_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        fix = "Restore the file, or start a new run."
        raise SpecError(f"cannot read the engines' key: {error}", where=manifest.engine_key_file, fix=fix) from error
    return _check_key(key, where=manifest.engine_key_file)


def _check_key(key: str, *, where: str) -> str:
    if not key.isascii() or not key.isprintable():  # it becomes part of a header
        text = "this is no key: it has more than one line, control characters or letters beyond ASCII"
        raise SpecError(text, where=where, fix="It must be one line with the key.")
    return key
