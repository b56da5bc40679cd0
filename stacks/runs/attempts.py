"""Which try each machine of a run is at, and which offers are left out: attempts.json, written by the life cycle alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from schemas.files import replace_file


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """attempt counts from 1; left_out has keys of offers (providers.choice.make_offer_key) that failed for this index."""

    attempt: int = 1
    left_out: tuple[str, ...] = ()


def load_attempts(path: Path) -> dict[int, Attempt]:
    """Attempts by machine index; an index that is missing is at its first."""
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=dict[int, Attempt])


def save_attempts(path: Path, attempts: dict[int, Attempt]) -> None:
    replace_file(path, msgspec.json.encode(attempts), durable=True)
