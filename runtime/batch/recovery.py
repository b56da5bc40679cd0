"""What an earlier dispatcher left in a results file: reads which requests are done and cuts off damage. Called by the journal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from runtime.batch.results import ResultLine, ResultWriter
from runtime.batch.tokens import Tokens
from schemas.status import StopReason

# Lines with these codes were written for requests that never ran; a stop that did not get to its end does not count.
STOP_CODES: frozenset[StopReason] = frozenset({"batch_cancelled", "batch_expired", "budget_exceeded"})
_BUFFER_BYTES = 1024 * 1024


class Tally(msgspec.Struct, gc=False):
    """Counts of what is written."""

    completed: int = 0
    failed: int = 0
    tokens: Tokens = msgspec.field(default_factory=Tokens)

    def count(self, *, failed: bool, tokens: Tokens) -> None:
        if failed:
            self.failed += 1
        else:
            self.completed += 1
        self.tokens.add(tokens)


def recover_file(
    path: Path,
    writer: ResultWriter,
    *,
    done: bytearray,
    tally: Tally,
    before_cut: Callable[[], None] = lambda: None,
) -> int:
    """Mark what the file has as done, and leave only whole lines of ours in it, each request once.

    A kill tears the last line, a power cut can leave blocks of NUL: the file is cut at the first line that is not
    whole, and the good lines behind it, if there are any, are appended again. before_cut runs before the first byte moves.
    Returns the bytes taken out.
    """
    with path.open("r+b", buffering=_BUFFER_BYTES) as file, tempfile.TemporaryFile(dir=path.parent) as rest:
        size = os.fstat(file.fileno()).st_size
        end = _read_lines(file, rest, writer, done, tally)
        if end == size:
            return 0
        before_cut()
        file.truncate(end)
        file.seek(end)
        rest.seek(0)
        while block := rest.read(_BUFFER_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return size - file.tell()


def read_finished(path: Path, writer: ResultWriter, *, done: bytearray, tally: Tally) -> str:
    """Mark and count what a file in its final place has, changing nothing; the stop code of its lines, or ""."""
    code = ""
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        for data in file:
            result = writer.read(data)
            if result is None or result.line >= len(done):
                continue
            done[result.line] = 1
            tally.count(failed=result.failed, tokens=result.tokens)
            code = result.code if result.code in STOP_CODES else code
    return code


def _read_lines(file: IO[bytes], rest: IO[bytes], writer: ResultWriter, done: bytearray, tally: Tally) -> int:
    """Returns where the undamaged part ends; copies good lines from behind that point to `rest`."""
    offset = 0
    end = -1
    for data in file:
        result = writer.read(data)
        if result is not None and _is_wanted(result, done):
            done[result.line] = 1
            tally.count(failed=result.failed, tokens=result.tokens)
            if end >= 0:
                rest.write(data)
        elif end < 0:
            end = offset
        offset += len(data)
    return offset if end < 0 else end


def _is_wanted(result: ResultLine, done: bytearray) -> bool:
    return result.line < len(done) and not done[result.line] and result.code not in STOP_CODES
