from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import runtime.batch.journal
from runtime.batch.journal import Journal
from runtime.batch.results import ResultWriter
from runtime.batch.tokens import Tokens

writer = ResultWriter("r")


def line(number: int) -> bytes:
    return writer.make_answer(number, b'"i%d"' % number, status=200, request_id="q", body=b"{}")


@pytest.fixture
async def open_journal(tmp_path: Path) -> AsyncIterator[Callable[..., Journal]]:
    journals = []

    def open_it(lines: int = 10) -> Journal:
        journal = Journal(tmp_path, writer, lines=lines)
        journal.recover()
        journals.append(journal)
        return journal

    yield open_it
    for journal in journals:
        await journal.close()


async def test_a_second_result_of_a_request_is_dropped(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    journal = open_journal()

    assert journal.add(3, line(3), failed=False, tokens=Tokens(1, 0, 2, 0))
    assert not journal.add(3, line(3), failed=True, tokens=Tokens(1, 0, 2, 0))

    await journal.close()
    assert (tmp_path / "output.jsonl.part").read_bytes() == line(3)
    assert (tmp_path / "error.jsonl.part").read_bytes() == b""
    assert (journal.undone, journal.tally.completed, journal.tally.tokens.output) == (9, 1, 2)


async def test_results_reach_the_file_within_the_group_delay(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    journal = open_journal()
    journal.add(0, line(0), failed=False)
    journal.add(1, line(1), failed=False)
    assert (tmp_path / "output.jsonl.part").read_bytes() == b""

    async with asyncio.timeout(2):
        while (tmp_path / "output.jsonl.part").read_bytes() != line(0) + line(1):
            await asyncio.sleep(0.005)


async def test_a_full_group_is_written_at_once(
    open_journal: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.batch.journal, "GROUP_BYTES", 100)
    journal = open_journal()

    journal.add(0, line(0), failed=False)

    assert (tmp_path / "output.jsonl.part").read_bytes() == line(0)


async def test_written_results_are_synced_soon_and_not_one_by_one(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(runtime.batch.journal, "_sync_data", synced.append)
    monkeypatch.setattr(runtime.batch.journal, "SYNC_DELAY_S", 0.05)
    monkeypatch.setattr(runtime.batch.journal, "GROUP_BYTES", 1)
    journal = open_journal(200)

    for number in range(200):
        journal.add(number, line(number), failed=False)
    async with asyncio.timeout(2):
        while not synced:
            await asyncio.sleep(0.005)

    assert len(synced) == 1


async def test_much_is_synced_without_waiting(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(runtime.batch.journal, "_sync_data", lambda _fd: loop.call_soon_threadsafe(synced.set))
    monkeypatch.setattr(runtime.batch.journal, "SYNC_DELAY_S", 60.0)
    monkeypatch.setattr(runtime.batch.journal, "SYNC_BYTES", 100)
    journal = open_journal()

    journal.add(0, line(0), failed=False)
    journal.flush()

    async with asyncio.timeout(2):
        await synced.wait()


async def test_a_sync_that_fails_is_told_and_ends_writing(
    open_journal: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(runtime.batch.journal, "_sync_data", fail)
    monkeypatch.setattr(runtime.batch.journal, "SYNC_DELAY_S", 0.01)
    journal = open_journal()
    journal.add(0, line(0), failed=False)

    async with asyncio.timeout(2):
        error = await journal.failure
    journal.add(1, line(1), failed=False)
    journal.flush()

    assert error.errno == 5
    assert (tmp_path / "output.jsonl.part").read_bytes() == line(0)


async def test_finished_files_are_in_place_and_an_empty_error_file_is_not(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    journal = open_journal(1)
    journal.add(0, line(0), failed=False)

    await journal.finish(ordered=False)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["output.jsonl"]
    again = open_journal(1)
    assert again.is_finished
    assert again.undone == 0


async def test_an_output_without_answers_is_an_empty_file(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    journal = open_journal(1)
    journal.add(0, writer.make_failure(0, b'"a"', code="batch_expired", message="m"), failed=True)

    await journal.finish(ordered=True)

    assert (tmp_path / "output.jsonl").read_bytes() == b""
    assert (tmp_path / "error.jsonl").exists()
    assert open_journal(1).stop_code == "batch_expired"


async def test_closing_twice_is_fine(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    journal.add(0, line(0), failed=False)
    await journal.close()
    await journal.close()

    assert not journal.failure.done()
