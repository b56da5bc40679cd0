"""The ledger: which machines a run has had, from when to when, told from intents and Join's records."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacks.run_folder import RunFolder
from stacks.runs.ledger import read_joined, read_ledger, sum_usd
from tests.stacks.run_files import START, join_machine, make_folder, make_record, note_machine


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


def test_a_run_that_has_asked_for_nothing_has_had_no_machine(folder: RunFolder) -> None:
    assert read_ledger(folder) == ()


def test_a_machine_costs_from_its_create_to_its_end(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created", price_usd_per_hour=6.0)

    entry = read_ledger(folder)[0]

    assert (entry.id, entry.created_at, entry.gone_at) == ("m0", START, None)
    assert entry.usd(START + 1800) == 3.0


def test_after_its_end_it_costs_no_more(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created", "seen", "deleted", price_usd_per_hour=6.0)

    entry = read_ledger(folder)[0]

    assert entry.gone_at == START + 120
    assert entry.usd(START + 1e9) == entry.usd(START + 120) == pytest.approx(0.2)


def test_an_adopted_machine_counts_and_is_counted_once(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created", "adopted", "adopted")

    assert [entry.id for entry in read_ledger(folder)] == ["m0"]


def test_creates_that_made_nothing_cost_nothing(folder: RunFolder) -> None:
    note_machine(folder, "", "no_capacity")
    note_machine(folder, "", "absent", index=1)

    assert read_ledger(folder) == ()


def test_unconfirmed_is_remembered_until_the_machine_is_seen_to_be_gone(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created", "unconfirmed")
    note_machine(folder, "m1", "created", "unconfirmed", "deleted", index=1)

    first, second = read_ledger(folder)

    assert (first.unconfirmed, first.gone_at) == (True, None)
    assert (second.unconfirmed, second.gone_at) == (False, START + 120)


def test_the_first_end_counts(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created", "deleted", "deleted_extra")

    assert read_ledger(folder)[0].gone_at == START + 60


def test_a_damaged_line_hides_no_other_machine(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created")
    with (folder.root / "intents.jsonl").open("ab") as file:
        file.write(b"{torn\n")
    note_machine(folder, "m1", "created", index=1)

    assert [entry.id for entry in read_ledger(folder)] == ["m0", "m1"]


def test_machines_cost_together_what_each_costs(folder: RunFolder) -> None:
    for index in range(3):
        note_machine(folder, f"m{index}", "created", index=index, price_usd_per_hour=2.0)

    assert sum_usd(read_ledger(folder), START + 3600) == 6.0


def test_joined_at_is_when_the_record_was_written(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created")
    join_machine(folder, make_record(), at=START + 90)

    assert [record.joined_at for record in read_joined(folder)] == [START + 90]
    assert read_ledger(folder)[0].joined_at == START + 90


def test_a_record_of_another_machine_of_the_same_index_is_not_this_ones(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created")
    join_machine(folder, make_record(id="m7"), at=START)

    assert read_ledger(folder)[0].joined_at is None


def test_a_torn_record_is_no_join(folder: RunFolder) -> None:
    folder.machine(0).write_bytes(b'{"index": 0')
    (folder.machines / ".1.json.new").write_bytes(b"half")

    assert read_joined(folder) == []


def test_a_machine_that_has_left_has_worked_all_the_same(folder: RunFolder) -> None:
    name = note_machine(folder, "m0", "created", "deleted")
    join_machine(folder, make_record(), at=START + 30)
    folder.machine(0).rename(folder.machines / f"{name}.left")

    assert read_joined(folder) == []
    assert read_ledger(folder)[0].joined_at == START + 30
