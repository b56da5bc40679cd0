from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from runtime.dispatcher.machines_watch import MachinesWatch
from schemas.machine import MachineRecord


def make_record(index: int, attempt: int = 0) -> MachineRecord:
    return MachineRecord(
        index=index, attempt=attempt, cloud="local", id=f"m{index}", name=f"n{index}", host="h", port=1, user="u",
        host_key="k", engine_port=2, price_usd_per_hour=0.0, created_at=0.0,
    )  # fmt: skip


def write(folder: Path, record: MachineRecord) -> None:
    (folder / f"{record.index}.json").write_bytes(msgspec.json.encode(record))


def test_machines_are_those_whose_records_are_there(tmp_path: Path) -> None:
    watch = MachinesWatch(tmp_path)
    assert watch.look() == {}
    write(tmp_path, make_record(0))
    write(tmp_path, make_record(12))
    (tmp_path / "12.leaving").touch()
    (tmp_path / "7.leaving").touch()
    (tmp_path / ".3.json.tmp").touch()
    (tmp_path / "notes.json").touch()

    sightings = watch.look()

    assert {index: sighting.is_leaving for index, sighting in sightings.items()} == {0: False, 12: True}
    (tmp_path / "0.json").unlink()
    assert set(watch.look()) == {12}


def test_a_record_that_changed_is_read_again(tmp_path: Path) -> None:
    watch = MachinesWatch(tmp_path)
    write(tmp_path, make_record(0))
    assert watch.look()[0].record.attempt == 0

    (tmp_path / "0.json").unlink()
    write(tmp_path, make_record(0, attempt=13))

    assert watch.look()[0].record.attempt == 13


@pytest.mark.parametrize("data", [b"", b"{", b'{"index":0}', msgspec.json.encode(make_record(1)), b"\xff"])
def test_what_is_no_record_is_told_once_and_left_out(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    watch = MachinesWatch(tmp_path)
    (tmp_path / "0.json").write_bytes(data)

    assert watch.look() == {}
    assert watch.look() == {}

    assert len(caplog.records) == 1


def test_no_folder_yet_is_no_machines(tmp_path: Path) -> None:
    assert MachinesWatch(tmp_path / "none").look() == {}


def test_a_drain_is_confirmed_by_a_file(tmp_path: Path) -> None:
    MachinesWatch(tmp_path).confirm_drained(make_record(4))

    assert [path.name for path in tmp_path.iterdir()] == ["4.drained"]
