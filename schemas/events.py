"""Events of a run, one JSON line each: who says what when. Written by the life cycle and the providers, shown by `logs`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.files import append_line
from schemas.status import Event, format_time

Source = Literal["planner", "cloud", "engine", "dispatcher", "release", "notifier"]


def append_event(path: Path, source: Source, event: str, message: str, **data: Any) -> Event:
    """Add one event with the time of now. What happens goes on when it cannot be written down: a full disk keeps nothing alive."""
    record = Event(time=format_time(time.time()), source=source, event=event, message=message, data=data)
    with contextlib.suppress(OSError):
        append_line(path, msgspec.json.encode(record), durable=False)
    return record


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Whole events from a byte offset on, each with the offset behind it; a torn last line is left for later."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                yield msgspec.json.decode(line, type=Event), offset
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
