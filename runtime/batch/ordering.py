"""Puts a finished results file into the order of the input, for `dispatch.ordered`. Called by the journal, in a thread."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from runtime.batch.results import ResultWriter
from schemas.files import sync_folder

_BUFFER_BYTES = 1024 * 1024


def order_file(path: Path, writer: ResultWriter) -> None:
    """Rewrite path line by line in input order, replacing it when the new one is safe on disk. Costs 24 bytes a line."""
    lines, offsets = array("Q"), array("Q", [0])
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        for data in file:
            result = writer.read(data)
            lines.append(result.line if result else 0)
            offsets.append(offsets[-1] + len(data))
    ordinals = range(len(lines))
    if all(lines[ordinal] < lines[ordinal + 1] for ordinal in ordinals[:-1]):
        return
    temporary = path.with_name(f".{path.name}.ordered.tmp")
    with path.open("rb", buffering=0) as source, temporary.open("wb", buffering=_BUFFER_BYTES) as target:
        for ordinal in sorted(ordinals, key=lines.__getitem__):
            length = offsets[ordinal + 1] - offsets[ordinal]
            target.write(os.pread(source.fileno(), length, offsets[ordinal]))
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
