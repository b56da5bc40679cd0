"""Fills a new run's folder with what an earlier run has finished, so that only the rest is sent. Called by `resume` and `retry`.

    check and index the new input -> pair the requests of both indexes by id -> copy the results whose bodies are the same

The copies are the new run's journal: its dispatcher recovers from them as from its own. Nothing is changed in the old folder.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from runtime.batch.batch_lines import read_max_tokens
from runtime.batch.id_table import IdTable
from runtime.batch.input_index import BatchInput, StoredHashes, open_input
from runtime.batch.input_lines import find_line_numbers
from runtime.batch.journal import ERROR, OUTPUT
from runtime.batch.recovery import STOP_CODES, Tally
from runtime.batch.results import ResultWriter
from runtime.dispatcher.dispatch_lock import is_held
from runtime.dispatcher.progress import make_usage, read_progress
from schemas.errors import Problem, SpecError
from schemas.files import sync_folder
from schemas.status import Usage

INDEX = "input.index"
_BUFFER_BYTES = 1024 * 1024
_MAX_PROBLEMS = 10


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """What a new run has from an earlier one, and what is left of it.

    answers and failures: taken over, with their tokens; left_*: the requests that still have to be sent. vanished: requests
    of the earlier run that the input no longer has. lost: results that the earlier run told of and its files do not have.
    """

    lines: int
    answers: int = 0
    failures: int = 0
    usage: Usage = Usage()
    left: int
    left_bytes: int
    left_max_tokens_sum: int
    left_max_tokens_unknown: int
    vanished: int = 0
    lost: int = 0


class EarlierRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended: its name and its folder."""

    run: str
    folder: Path


def adopt_results(
    earlier: EarlierRun,
    folder: Path,
    *,
    run: str,
    input_path: Path,
    endpoint: str,
    model: str,
    line_limit: int = 0,
    with_failures: bool,
) -> Adoption:
    """Write input.index and both results files (as `.part`) of the new `run` into the empty `folder`.

    Results of requests that were never run are not taken over, and failures only if wanted. Raises SpecError for a bad
    input, for an earlier run at work, and when a request has another body than the one whose result it would get.
    """
    if is_held(earlier.folder):
        raise SpecError(
            "its dispatcher is still at work", where=earlier.run, fix=f"./inv cancel {earlier.run} stops it."
        )
    batch = open_input(input_path, folder / INDEX, endpoint=endpoint, model=model, line_limit=line_limit)
    with contextlib.closing(batch):
        if not (earlier.folder / INDEX).exists():
            _refuse_unproven(earlier)
            return _describe(batch, bytearray(batch.lines), Tally())
        with _open_hashes(earlier.folder) as old, _open_hashes(folder) as new:
            _refuse_other_endpoint(earlier, old, endpoint)
            places = match_requests(old, new)
            copying = _Copying(batch, old, new, places, ResultWriter(earlier.run), ResultWriter(run), with_failures)
            copying.copy(earlier.folder, folder)
        copying.raise_if_changed(earlier.run)
        adoption = _describe(batch, copying.done, copying.tally)
    return msgspec.structs.replace(
        adoption, vanished=places.count(0), lost=max(0, _count_told(earlier.folder) - copying.found)
    )


def match_requests(old: StoredHashes, new: StoredHashes) -> array[int]:
    """For each request of `old` the one of `new` with the same id: its number + 1, or 0 where there is none."""
    places = array("I", bytes(4 * old.lines))
    table: IdTable | None = None
    for line in range(old.lines):
        wanted = old.custom_id(line)
        if line < new.lines and new.custom_id(line) == wanted:
            places[line] = line + 1
            continue
        if table is None:
            table = IdTable(new)
        places[line] = table.find(wanted) + 1
    return places


class _Copying:
    """Both results files of the earlier run on their way into the new folder."""

    def __init__(
        self,
        batch: BatchInput,
        old: StoredHashes,
        new: StoredHashes,
        places: array[int],
        earlier: ResultWriter,
        writer: ResultWriter,
        with_failures: bool,
    ) -> None:
        self.done = bytearray(batch.lines)
        self.tally = Tally()
        self.found = 0
        self._changed = array("I")
        self._batch = batch
        self._old, self._new = old, new
        self._places = places
        self._earlier, self._writer = earlier, writer
        self._with_failures = with_failures

    def copy(self, source: Path, target: Path) -> None:
        """Answers first, so that a request which has both keeps its answer."""
        for name in (OUTPUT, ERROR):
            final, part = source / name, source / f"{name}.part"
            path = final if final.exists() else part
            with (target / part.name).open("xb", buffering=_BUFFER_BYTES) as copied:
                if path.exists():
                    self._copy_file(path, copied.write)
                copied.flush()
                os.fsync(copied.fileno())
        sync_folder(target)

    def _copy_file(self, path: Path, write: Callable[[bytes], object]) -> None:
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            for data in file:
                taken = self._take(data)
                if taken is not None:
                    write(taken)

    def _take(self, data: bytes) -> bytes | None:
        """The line as the new run writes it; None for one that is torn, foreign, not wanted, or there already."""
        result = self._earlier.read(data)
        if result is None or result.line >= self._old.lines:
            return None
        self.found += 1
        line = self._places[result.line] - 1
        is_wanted = result.code not in STOP_CODES and (self._with_failures or not result.failed)
        if not is_wanted or line < 0 or self.done[line]:
            return None
        custom_id = bytes(self._batch.read(line).custom_id)
        taken = self._writer.take_over(data, self._earlier, line=line, custom_id=custom_id)
        if taken is None:
            return None
        self.done[line] = 1
        if self._old.body(result.line) != self._new.body(line):
            self._changed.append(line)
            return None
        self.tally.count(failed=result.failed, tokens=result.tokens)
        return taken

    def raise_if_changed(self, earlier: str) -> None:
        """Raise SpecError that names the first requests whose bodies are not those that were answered."""
        if not self._changed:
            return
        first = sorted(self._changed)[:_MAX_PROBLEMS]
        offsets = [self._batch.offset(line) for line in first]
        with self._batch.path.open("rb") as file:
            numbers = find_line_numbers(file, offsets)
        problems = tuple(
            Problem(
                file=str(self._batch.path),
                line=numbers[offset],
                message=f"custom_id {self._read_id(line)!r} has another body than in run {earlier}",
                code="body_changed",
            )
            for line, offset in zip(first, offsets, strict=True)
        )
        count = f"{len(self._changed):,} request" + ("s have" if len(self._changed) > 1 else " has")
        raise SpecError(
            f"{count} another body than in run {earlier}, whose results would no longer fit",
            where=str(self._batch.path),
            fix="Put the old lines back, give changed requests new ids, or run the job anew.",
            problems=problems,
            omitted=len(self._changed) - len(problems),
        )

    def _read_id(self, line: int) -> str:
        return msgspec.json.decode(self._batch.read(line).custom_id, type=str)


@contextlib.contextmanager
def _open_hashes(folder: Path) -> Iterator[StoredHashes]:
    with contextlib.closing(StoredHashes(folder / INDEX)) as hashes:
        yield hashes


def _refuse_unproven(earlier: EarlierRun) -> None:
    """Without an index nothing tells which bodies were answered; a run that never began has neither."""
    for name in (OUTPUT, ERROR):
        for path in (earlier.folder / name, earlier.folder / f"{name}.part"):
            if path.exists() and path.stat().st_size:
                raise SpecError(
                    f"there are results but no {INDEX}, so nothing tells which requests they answer",
                    where=str(earlier.folder),
                    fix="Restore the file, or run the job anew.",
                )


def _refuse_other_endpoint(earlier: EarlierRun, old: StoredHashes, endpoint: str) -> None:
    if old.header.endpoint != endpoint:
        raise SpecError(
            f"this job sends to {endpoint}, but run {earlier.run} sent to {old.header.endpoint}",
            fix="Answers of one endpoint are no answers of another: run the job anew.",
        )


def _count_told(folder: Path) -> int:
    progress = read_progress(folder)
    return progress.request_counts.completed + progress.request_counts.failed if progress else 0


def _describe(batch: BatchInput, done: bytearray, tally: Tally) -> Adoption:
    """Count what is left, reading its requests once more."""
    count = size = tokens = unknown = 0
    line = done.find(0)
    while line >= 0:
        body = bytes(batch.read(line).body)
        count += 1
        size += len(body)
        limit = read_max_tokens(body)
        tokens, unknown = (tokens + limit, unknown) if limit >= 0 else (tokens, unknown + 1)
        line = done.find(0, line + 1)
    return Adoption(
        lines=batch.lines,
        answers=tally.completed,
        failures=tally.failed,
        usage=make_usage(tally.tokens),
        left=count,
        left_bytes=size,
        left_max_tokens_sum=tokens,
        left_max_tokens_unknown=unknown,
    )
