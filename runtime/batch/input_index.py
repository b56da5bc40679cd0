"""input.index: where each request of the batch file begins, and hashes that prove it is still the same. Used by the dispatcher."""

from __future__ import annotations

import mmap
import os
import time
from array import array
from pathlib import Path

import msgspec

from runtime.batch.batch_input import InputReport, hash_bytes, scan_input
from runtime.batch.batch_lines import LineFacts, RequestLine, read_request
from schemas.errors import SpecError
from schemas.files import sync_folder

VERSION = 1
RECORD_BYTES = 24  # offset, hash of custom_id, hash of the body; each 8 bytes, in this machine's order
_HEADER_BYTES = 4096
_EDGE_BYTES = 64 * 1024
_CHUNK_RECORDS = 8192
_BLOCK_RECORDS = 512
_BLOCK_BYTES = 256 * 1024


class IndexHeader(msgspec.Struct, frozen=True, kw_only=True):
    """First 4096 bytes of the index: JSON, padded with blanks. end: offset behind the last request's line."""

    version: int = VERSION
    endpoint: str
    model: str
    line_limit: int
    size: int
    modified_ns: int
    edges: int
    lines: int
    end: int


class BatchInput:
    """An input that was found in order, its requests readable in any order. Holds two descriptors and two small blocks."""

    def __init__(self, path: Path, header: IndexHeader, file: int, index: int) -> None:
        self.path = path
        self.header = header
        self.lines = header.lines
        self._file = file
        self._index = index
        self._records, self._first_record = array("Q"), 0
        self._block, self._block_start = b"", 0
        self._last_line = -1

    def read(self, line: int) -> RequestLine:
        """Request `line` (from 0) as the user wrote it; raises SpecError if the file is no longer what was checked."""
        start, end = self._span(line)
        try:
            return read_request(self._read_bytes(line, start, end))
        except (msgspec.DecodeError, RecursionError, OSError) as error:
            raise _input_changed(self.path, "while it was being read") from error

    def length(self, line: int) -> int:
        """Bytes of request `line`, its newline included."""
        start, end = self._span(line)
        return end - start

    def offset(self, line: int) -> int:
        """Where request `line` begins in the file."""
        return self._span(line)[0]

    def hashes(self, line: int) -> tuple[int, int]:
        """The stored hashes of custom_id and of the body."""
        record = array("Q", os.pread(self._index, RECORD_BYTES, _HEADER_BYTES + line * RECORD_BYTES))
        return record[1], record[2]

    def raise_if_changed(self) -> None:
        """Raise SpecError if somebody wrote to the open file since it was checked."""
        status = os.fstat(self._file)
        if (status.st_size, status.st_mtime_ns) != (self.header.size, self.header.modified_ns):
            raise _input_changed(self.path, "while it was being read")

    def close(self) -> None:
        os.close(self._file)
        os.close(self._index)

    def _span(self, line: int) -> tuple[int, int]:
        """Where the request begins, and where the next one does."""
        if not 0 <= line < self.lines:
            raise IndexError(line)
        place = 3 * (line - self._first_record)
        if not 0 <= place < len(self._records) - 3:
            self._first_record, place = line, 0
            size = RECORD_BYTES * (_BLOCK_RECORDS + 1)
            self._records = array("Q", os.pread(self._index, size, _HEADER_BYTES + line * RECORD_BYTES))
        end = self._records[place + 3] if line + 1 < self.lines else self.header.end
        return self._records[place], end

    def _read_bytes(self, line: int, start: int, end: int) -> bytes:
        """Ahead of time while lines are read one after the other, else just this one."""
        is_next, self._last_line = line == self._last_line + 1, line
        offset = start - self._block_start
        if is_next and not 0 <= offset <= offset + end - start <= len(self._block):
            self._block, self._block_start, offset = self._pread(_BLOCK_BYTES, start), start, 0
        if not 0 <= offset <= offset + end - start <= len(self._block):
            return self._pread(end - start, start).rstrip()
        return self._block[offset : offset + end - start].rstrip()

    def _pread(self, size: int, start: int) -> bytes:
        """Bytes that were checked: a request must not get the answer to what somebody has written in its place since."""
        data = os.pread(self._file, size, start)
        self.raise_if_changed()
        return data


class StoredHashes:
    """The hashes of an index alone: its input may have changed or be gone. Mapped, so that they cost no memory of ours."""

    def __init__(self, index_path: Path) -> None:
        """Raises SpecError for an index that is missing, torn or of another version."""
        header = _load_header(index_path)
        if header is None or index_path.stat().st_size < _HEADER_BYTES + header.lines * RECORD_BYTES:
            what = "is missing" if header is None else "is torn"
            raise SpecError(f"the index of the input {what}", where=str(index_path), fix="Start a new run.")
        self.header = header
        self.lines = header.lines
        with index_path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), _HEADER_BYTES + header.lines * RECORD_BYTES, access=mmap.ACCESS_READ)
        self._words = memoryview(self._map).cast("Q")[_HEADER_BYTES // 8 :]

    def custom_id(self, line: int) -> int:
        return self._words[3 * line + 1]

    def body(self, line: int) -> int:
        return self._words[3 * line + 2]

    def close(self) -> None:
        self._words.release()
        self._map.close()


def open_input(path: Path, index_path: Path, *, endpoint: str, model: str, line_limit: int = 0) -> BatchInput:
    """Check the input and index it, or trust the index that is there if the input is untouched.

    Raises SpecError for a file with problems, and for one whose requests are not those of the index (a changed
    line_limit may add or leave out lines at the end).
    """
    old = _load_header(index_path)
    if old is None or not _is_current(old, path, endpoint, model, line_limit):
        fresh = _write_index(path, index_path, endpoint=endpoint, model=model, line_limit=line_limit)
        if old is not None:
            _compare(path, old, index_path, fresh)
        fresh.replace(index_path)
        sync_folder(index_path.parent)
    header = _load_header(index_path)
    if header is None:
        raise SpecError("the index of the input cannot be read", where=str(index_path), fix="Start a new run.")
    return BatchInput(path, header, _open(path), _open(index_path))


def _load_header(index_path: Path) -> IndexHeader | None:
    try:
        with index_path.open("rb") as file:
            header = msgspec.json.decode(file.read(_HEADER_BYTES), type=IndexHeader)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SpecError(f"cannot read the index of the input: {error}", where=str(index_path)) from error
    if header.version != VERSION:
        text = f"this index has version {header.version}, not {VERSION}"
        raise SpecError(text, where=str(index_path), fix="Start a new run.")
    return header


def _is_current(header: IndexHeader, path: Path, endpoint: str, model: str, line_limit: int) -> bool:
    if (header.endpoint, header.line_limit) != (endpoint, line_limit) or (model and header.model != model):
        return False
    try:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) != (header.size, header.modified_ns):
            return False
        return _hash_edges(path) == header.edges
    except OSError as error:
        raise SpecError(f"cannot read the input: {error.strerror}", where=str(path)) from error


def _write_index(path: Path, index_path: Path, *, endpoint: str, model: str, line_limit: int) -> Path:
    """Check the input and write its index beside the old one; returns the new file's path."""
    fresh = index_path.with_name(f".{index_path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    records = array("Q")
    try:
        with fresh.open("xb") as file:
            file.seek(_HEADER_BYTES)

            def keep(_ordinal: int, offset: int, id_hash: int, facts: LineFacts) -> None:
                records.extend((offset, id_hash, hash_bytes(facts.body)))
                if len(records) >= 3 * _CHUNK_RECORDS:
                    records.tofile(file)
                    del records[:]

            before = path.stat() if path.exists() else None
            report = scan_input(path, endpoint=endpoint, model=model, line_limit=line_limit, sink=keep)
            report.raise_if_bad()
            records.tofile(file)
            if before is None or before.st_mtime_ns != path.stat().st_mtime_ns:
                raise _input_changed(path, "while it was being checked")
            file.seek(0)
            file.write(_render_header(path, report, endpoint, line_limit))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def _render_header(path: Path, report: InputReport, endpoint: str, line_limit: int) -> bytes:
    status = path.stat()
    header = IndexHeader(
        endpoint=endpoint,
        model=report.model,
        line_limit=line_limit,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        edges=_hash_edges(path),
        lines=report.lines,
        end=report.end,
    )
    return msgspec.json.encode(header).ljust(_HEADER_BYTES)


def _compare(path: Path, old: IndexHeader, old_path: Path, fresh: Path) -> None:
    """Raise SpecError unless the fresh index has the same requests in the same places as the old one."""
    new = _load_header(fresh)
    if new is None or old.endpoint != new.endpoint or (old.line_limit == new.line_limit and old.lines != new.lines):
        fresh.unlink(missing_ok=True)
        raise _input_changed(path, "since this run began")
    left = min(old.lines, new.lines) * RECORD_BYTES
    with old_path.open("rb") as one, fresh.open("rb") as other:
        one.seek(_HEADER_BYTES)
        other.seek(_HEADER_BYTES)
        while left:
            size = min(left, _CHUNK_RECORDS * RECORD_BYTES)
            if one.read(size) != other.read(size):
                fresh.unlink(missing_ok=True)
                raise _input_changed(path, "since this run began")
            left -= size


def _hash_edges(path: Path) -> int:
    """One hash over the first and the last 64 kB."""
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _EDGE_BYTES))
        return hash_bytes(head + file.read(_EDGE_BYTES))


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SpecError(f"cannot read it: {error.strerror}", where=str(path)) from error


def _input_changed(path: Path, when: str) -> SpecError:
    fix = "Put the old file back and start the dispatcher again, or make a new run of the new file."
    return SpecError(f"the input changed {when}; its results would not fit together", where=str(path), fix=fix)
