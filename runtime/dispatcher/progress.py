"""Tells others how it goes: progress.json twice a second, stats.jsonl every 5 s. Run by the dispatcher."""

from __future__ import annotations

import asyncio
import collections
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from runtime.batch.journal import Journal
from runtime.batch.recovery import Tally
from runtime.batch.tokens import Tokens
from runtime.dispatcher.durations import DurationCounts
from runtime.dispatcher.replica import Replica
from schemas.durations import Durations
from schemas.files import append_line, replace_file
from schemas.status import Progress, ReplicaProgress, RequestCounts, StopReason, Usage

PROGRESS, STATS = "progress.json", "stats.jsonl"
INTERVAL_S = 0.5
STATS_INTERVAL_S = 5.0
RATE_SPAN_S = 5.0
DispatchState = Literal["waiting", "running", "draining", "finished", "stopped", "failed"]
_log = logging.getLogger("leasehold.progress")


class ReplicaStats(msgspec.Struct, frozen=True, kw_only=True):
    """One replica in a line of stats.jsonl. Percentiles: of the answers since the last line; running, waiting: the engine's own."""

    index: int
    state: str
    in_flight: int
    window: int
    completed: int
    failed: int
    output_tokens: int
    p50_s: float
    p90_s: float
    p99_s: float
    running: float | None = None
    waiting: float | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """One line of stats.jsonl; time is seconds since 1970, counts are since the start of the batch, rates over the last seconds.

    durations: steps and answers (schemas.durations), of the answers since the last line.
    """

    version: int = 1
    time: float
    completed: int
    failed: int
    retrying: int
    redone: int
    hedged: int
    usage: Usage
    requests_per_s: float
    output_tokens_per_s: float
    replicas: tuple[ReplicaStats, ...]
    durations: tuple[tuple[int, int], ...] = ()


class Rates:
    """Requests and output tokens per second over the last seconds."""

    def __init__(self) -> None:
        self._samples: collections.deque[tuple[float, int, int]] = collections.deque()

    def add(self, now: float, requests: int, tokens: int) -> tuple[float, float]:
        self._samples.append((now, requests, tokens))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_SPAN_S:
            self._samples.popleft()
        then, requests_then, tokens_then = self._samples[0]
        span_s = now - then
        return ((requests - requests_then) / span_s, (tokens - tokens_then) / span_s) if span_s > 0 else (0.0, 0.0)


class Reporter:
    """Writes both files of one dispatcher; `state`, `message` and the rest are set by it as things happen."""

    def __init__(self, folder: Path) -> None:
        self.state: DispatchState = "waiting"
        self.message = ""
        self.stop_reason: StopReason | None = None
        self.first_sent_at: float | None = None
        self.ended_at: float | None = None
        self.replicas: Sequence[Replica] = ()
        self.redone = self.hedged = self.retrying = 0
        self.durations = DurationCounts()
        self._folder = folder
        self.keeps_old = False
        self._redone_before = 0
        self._total = 0
        self._tally = Tally()
        self._journal: Journal | None = None
        self._durations: Durations | None = None
        self._started_at = time.time()
        self._rates = Rates()
        self._rate = (0.0, 0.0)
        self._is_failing = False

    def continue_from(self, old: Progress | None, *, is_finished: bool) -> None:
        """Go on from an earlier dispatcher's times and counts; if it told the end of a finished batch, that stays."""
        if old is None:
            return
        self.keeps_old = is_finished and old.state in ("finished", "stopped")
        self._started_at, self.first_sent_at = old.started_at, old.first_sent_at
        self._redone_before = old.redone
        if old.durations is not None:
            self.durations.continue_from(old.durations)
            self._durations = old.durations

    def watch(self, journal: Journal) -> None:
        """Count what this journal has from now on."""
        self._total, self._tally, self._journal = journal.lines, journal.tally, journal
        self._rates = Rates()

    def write(self) -> None:
        """progress.json as of now."""
        now = time.time()
        self._take_durations()
        done = self._tally.completed + self._tally.failed
        self._rate = self._rates.add(time.monotonic(), done, self._tally.tokens.output)
        self._save(lambda: replace_file(self._folder / PROGRESS, msgspec.json.encode(self._make_progress(now, done))))

    def write_stats(self) -> None:
        """One more line of stats.jsonl."""
        line = msgspec.json.encode(self._make_stats(time.time()))
        self._save(lambda: append_line(self._folder / STATS, line, durable=False))

    def _take_durations(self) -> None:
        """Only those of answers that a kill cannot take any more: what has to be answered again must not count twice."""
        if self._journal is None:
            return
        self._journal.flush()
        if not self._journal.failure.done():
            self._durations = self.durations.make_record()

    def _save(self, write: Callable[[], None]) -> None:
        """A full disk is the journal's to report, and it will: here it must not stop anything."""
        if self.keeps_old:
            return
        try:
            write()
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                _log.error("cannot write the progress: %s", error)
            self._is_failing = True

    def _make_progress(self, now: float, done: int) -> Progress:
        left, rate = self._total - done, self._rate[0]
        return Progress(
            pid=os.getpid(),
            state=self.state,
            request_counts=self._make_counts(),
            usage=make_usage(self._tally.tokens),
            requests_per_s=round(rate, 3),
            output_tokens_per_s=round(self._rate[1], 3),
            eta_s=round(left / rate, 1) if rate > 0 and self.state == "running" else None,
            replicas=tuple(_make_replica_progress(replica) for replica in self.replicas),
            started_at=self._started_at,
            updated_at=now,
            first_sent_at=self.first_sent_at,
            ended_at=self.ended_at,
            stop_reason=self.stop_reason,
            redone=self._redone_before + self.redone,
            message=self.message,
            durations=self._durations,
        )

    def _make_stats(self, now: float) -> Stats:
        return Stats(
            time=round(now, 3),
            completed=self._tally.completed,
            failed=self._tally.failed,
            retrying=self.retrying,
            redone=self._redone_before + self.redone,
            hedged=self.hedged,
            usage=make_usage(self._tally.tokens),
            requests_per_s=round(self._rate[0], 3),
            output_tokens_per_s=round(self._rate[1], 3),
            replicas=tuple(_make_replica_stats(replica) for replica in self.replicas),
            durations=self.durations.take_news(),
        )

    def _make_counts(self) -> RequestCounts:
        return RequestCounts(total=self._total, completed=self._tally.completed, failed=self._tally.failed)


async def report(reporter: Reporter, refresh: Callable[[], None]) -> None:
    """Write both files on time until cancelled; `refresh` brings the reporter up to date before each write."""
    stats_at = time.monotonic() + STATS_INTERVAL_S
    while True:
        refresh()
        reporter.write()
        if time.monotonic() >= stats_at:
            stats_at += STATS_INTERVAL_S
            reporter.write_stats()
        await asyncio.sleep(INTERVAL_S)


def read_progress(folder: Path) -> Progress | None:
    """What the last dispatcher told, None if it told nothing that can be read."""
    try:
        return msgspec.json.decode((folder / PROGRESS).read_bytes(), type=Progress)
    except (OSError, msgspec.DecodeError):
        return None


def make_usage(tokens: Tokens) -> Usage:
    return Usage(
        input_tokens=tokens.input,
        cached_tokens=tokens.cached,
        output_tokens=tokens.output,
        reasoning_tokens=tokens.reasoning,
    )


def _make_replica_progress(replica: Replica) -> ReplicaProgress:
    return ReplicaProgress(
        index=replica.index,
        state=replica.state,
        in_flight=len(replica.flights),
        window=replica.window.size,
        completed=replica.completed,
        failed=replica.failed,
        output_tokens=replica.output_tokens,
    )


def _make_replica_stats(replica: Replica) -> ReplicaStats:
    recent, replica.recent = replica.recent, type(replica.recent)()
    return ReplicaStats(
        index=replica.index,
        state=replica.state,
        in_flight=len(replica.flights),
        window=replica.window.size,
        completed=replica.completed,
        failed=replica.failed,
        output_tokens=replica.output_tokens,
        p50_s=round(recent.percentile(0.5), 4),
        p90_s=round(recent.percentile(0.9), 4),
        p99_s=round(recent.percentile(0.99), 4),
        running=replica.load.running if replica.load else None,
        waiting=replica.load.waiting if replica.load else None,
    )
