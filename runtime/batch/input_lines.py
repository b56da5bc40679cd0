"""The lines of a batch file with their numbers and offsets, and what is no such file at all. Called by batch_input and adoption."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtime.batch.batch_lines import MAX_LINE_BYTES
from schemas.errors import SpecError

_BUFFER_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# How a file begins that is no text with a request a line: what it is, and what makes one of it.
_OTHER_FORMATS = (
    (b"\x1f\x8b", "compressed with gzip", "gunzip --keep {name}"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd {name}"),
    (b"BZh", "compressed with bzip2", "bunzip2 --keep {name}"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unxz --keep {name}"),
    (b"PK\x03\x04", "a zip archive", "unzip {name}"),
    (b"PAR1", "a Parquet table", "Write its rows as JSON lines."),
    (b"\xff\xfe", "text in UTF-16", "iconv -f utf-16 -t utf-8 {name} > input.jsonl"),
    (b"\xfe\xff", "text in UTF-16", "iconv -f utf-16 -t utf-8 {name} > input.jsonl"),
)


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """For reading; raises SpecError for what is no file that can be read twice."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            # A pipe would be waited for without end, and everything here is read more than once.
            fix = f"Write it to a file first: cat {path} > input.jsonl"
            raise SpecError("the input is a pipe or a device, not a file", where=str(path), fix=fix)
        file = path.open("rb", buffering=_BUFFER_BYTES)
    except FileNotFoundError as error:
        raise SpecError("there is no such input file", where=str(path), fix="Correct the path of the input.") from error
    except IsADirectoryError as error:
        raise SpecError("the input is a folder, not a file", where=str(path), fix="Name a .jsonl file.") from error
    except OSError as error:
        fix = "Make the file readable for you."
        raise SpecError(f"cannot read the input: {error.strerror}", where=str(path), fix=fix) from error
    with file:
        yield file


def refuse_other_formats(path: Path, file: BinaryIO) -> None:
    """Raise SpecError for a file that is compressed, or no JSON lines at all: a million bad lines would say less."""
    head = file.read(512)
    file.seek(0)
    for magic, what, fix in _OTHER_FORMATS:
        if head.startswith(magic):
            command = f"Unpack it first: {fix}" if "{name}" in fix else fix
            raise SpecError(f"the input is {what}", where=str(path), fix=command.format(name=path.name))
    first = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if first.startswith(b"[") and first[1:].lstrip()[:1] in (b"{", b""):
        fix = f"Write one request a line: jq --compact-output '.[]' {path.name} > input.jsonl"
        raise SpecError("the input is one JSON list, not JSON lines", where=str(path), fix=fix)


def iterate_lines(file: BinaryIO) -> Iterator[tuple[int, int, int, bytes]]:
    """(number from 1, offset of its first byte, offset behind it, line). A longer line than we take is cut to MAX_LINE_BYTES."""
    number = offset = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        start, offset = offset, offset + len(line)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            offset += _skip_line(file)
        if number == 1 and line.startswith(_BYTE_ORDER_MARK):
            start, line = 3, line[3:]
        yield number, start, offset, line


def find_line_numbers(file: BinaryIO, offsets: list[int]) -> dict[int, int]:
    """The line number (from 1), as an editor counts, of each offset in an input; offsets ascend."""
    numbers: dict[int, int] = {}
    file.seek(0)
    position, number = 0, 1
    for offset in offsets:
        while position < offset:
            block = file.read(min(offset - position, _BUFFER_BYTES))
            if not block:
                break
            number += block.count(b"\n")
            position += len(block)
        numbers[offset] = number
    return numbers


def read_line(file: BinaryIO, offset: int) -> bytes:
    """The line that begins at an offset."""
    file.seek(offset)
    return file.readline(MAX_LINE_BYTES)


def _skip_line(file: BinaryIO) -> int:
    """Go behind the end of the present line; how many bytes that was."""
    skipped = 0
    while part := file.readline(_BUFFER_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped
