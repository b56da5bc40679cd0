"""Why a resource of a run could not be made: failures.jsonl, written by the providers, read by the life cycle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec

from schemas.errors import LeaseholdError
from schemas.files import append_line
from schemas.status import format_time

Step = Literal["lease", "machine", "endpoint", "engine"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One failed step of one machine (index -1: of the whole run); kind is the error's class, offer a key of the plan."""

    time: str
    step: Step
    index: int
    attempt: int = 0
    kind: str
    exit_code: int
    message: str


def record_failure(path: Path, *, step: Step, index: int, attempt: int, error: LeaseholdError) -> None:
    """Append a failure to the run's list."""
    failure = Failure(
        time=format_time(time.time()),
        step=step,
        index=index,
        attempt=attempt,
        kind=type(error).__name__,
        exit_code=error.exit_code,
        message=str(error),
    )
    append_line(path, msgspec.json.encode(failure), durable=False)


def read_failures(path: Path) -> list[Failure]:
    """All failures so far; a torn last line is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Failure))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return found
