from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from runtime.batch.journal import Journal
from runtime.batch.results import ResultWriter
from runtime.dispatcher.progress import PROGRESS, STATS, Rates, Reporter, Stats, read_progress
from schemas.status import Progress


def test_rates_are_over_the_last_seconds_only() -> None:
    rates = Rates()

    assert rates.add(0.0, 100, 1000) == (0.0, 0.0)
    assert rates.add(1.0, 110, 1050) == (10.0, 50.0)
    for second in range(2, 21):
        last = rates.add(float(second), 110 + 2 * (second - 1), 1050)
    assert last == (2.0, 0.0)


def test_both_files_can_be_read_back(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path)
    reporter.state, reporter.message, reporter.stop_reason = "stopped", "why", "batch_expired"

    reporter.write()
    reporter.write_stats()
    reporter.write_stats()

    progress = msgspec.json.decode((tmp_path / PROGRESS).read_bytes(), type=Progress)
    assert (progress.state, progress.message, progress.stop_reason) == ("stopped", "why", "batch_expired")
    stats = [msgspec.json.decode(line, type=Stats) for line in (tmp_path / STATS).read_bytes().splitlines()]
    assert len(stats) == 2


def test_a_folder_that_cannot_be_written_is_told_once_and_harmless(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Reporter(tmp_path / "gone")

    with caplog.at_level(logging.ERROR):
        reporter.write()
        reporter.write()

    assert len(caplog.records) == 1


def test_a_later_dispatcher_goes_on_from_the_first_ones_times_and_counts(tmp_path: Path) -> None:
    old = Progress(pid=1, state="running", started_at=5.0, updated_at=9.0, first_sent_at=6.0, redone=3)
    reporter = Reporter(tmp_path)

    reporter.continue_from(old, is_finished=False)
    reporter.redone = 2
    reporter.write()

    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.started_at, progress.first_sent_at, progress.redone) == (5.0, 6.0, 5)


def test_the_end_of_a_finished_batch_stays_as_it_was_told(tmp_path: Path) -> None:
    old = Progress(pid=1, state="finished", started_at=5.0, updated_at=9.0)
    reporter = Reporter(tmp_path)

    reporter.continue_from(old, is_finished=True)
    reporter.write()

    assert read_progress(tmp_path) is None


async def test_a_duration_is_told_only_once_its_answer_cannot_be_lost_by_a_kill(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ResultWriter("run-1"), lines=2)
    journal.recover()
    reporter = Reporter(tmp_path)
    reporter.watch(journal)

    for line in (0, 1):
        answer = journal.writer.make_answer(line, b'"a"', status=200, request_id="r", body=b"{}")
        journal.add(line, answer, failed=False)
        reporter.durations.add(0.2)
        reporter.write()
        if line == 0:
            assert (tmp_path / "output.jsonl.part").read_bytes() == answer
            journal.failure.set_result(OSError("the disk is full"))

    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress.durations is not None
    assert (progress.durations.answers, progress.request_counts.completed) == (1, 2)
    await journal.close()
