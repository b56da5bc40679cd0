"""Sees machines join, leave and drain by the files in machines_dir. Called by the dispatcher three times a second."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from schemas.errors import LeaseholdError
from schemas.files import replace_file
from schemas.machine import MachineRecord

INTERVAL_S = 0.3
_log = logging.getLogger("leasehold.machines")


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's record, and whether it is asked to drain."""

    record: MachineRecord
    is_leaving: bool


class MachinesWatch:
    """Reads the folder; a record is read again only when its file is another one or has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, tuple[tuple[int, int, int], MachineRecord | None]] = {}

    def look(self) -> dict[int, Sighting]:
        """The machines that are there now, by index. Unreadable records are reported once and left out."""
        try:
            names = {path.name for path in self.folder.iterdir()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise LeaseholdError(f"cannot list the machines: {error.strerror}", where=str(self.folder)) from error
        sightings = {}
        for name in sorted(names):
            stem, _, extension = name.partition(".")
            if extension != "json" or not stem.isdigit():
                continue
            record = self._read(name)
            if record is not None:
                sightings[record.index] = Sighting(record=record, is_leaving=f"{stem}.leaving" in names)
        return sightings

    def confirm_drained(self, record: MachineRecord) -> None:
        """Tell whoever asked for it that nothing of ours is on the machine any more."""
        replace_file(self.folder / f"{record.index}.drained", b"")

    def _read(self, name: str) -> MachineRecord | None:
        path = self.folder / name
        try:
            status = path.stat()
            mark = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._records.get(name)
            if known is not None and known[0] == mark:
                return known[1]
            record = _decode(path)
        except FileNotFoundError:
            return None
        self._records[name] = (mark, record)
        return record


def _decode(path: Path) -> MachineRecord | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=MachineRecord)
    except FileNotFoundError:
        raise
    except (OSError, msgspec.DecodeError) as error:
        _log.error("%s: not a machine's record: %s", path, error)
        return None
    if record.version != 1 or f"{record.index}.json" != path.name:
        _log.error("%s: version %s, index %s: not a record of this place", path, record.version, record.index)
        return None
    return record
