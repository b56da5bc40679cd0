"""status.json: what the life cycle writes at each change, and the last word for a run whose life cycle died."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from schemas.events import read_events
from schemas.status import ReplicaProgress, Status
from stacks.run_folder import RunFolder
from stacks.runs.run_status import StatusWriter, end_for_dead_lifecycle, is_over, read_progress, read_status
from tests.stacks.run_files import (
    join_machine,
    make_folder,
    make_progress,
    make_record,
    note_machine,
    write_progress,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


@pytest.fixture
def writer(folder: RunFolder) -> StatusWriter:
    return StatusWriter(folder, "tickets", 10)


def list_events(folder: RunFolder) -> list[str]:
    return [event.event for event, _ in read_events(folder.events)]


def test_before_anything_is_written_there_is_no_status(folder: RunFolder) -> None:
    assert read_status(folder) is None
    assert read_progress(folder) is None
    assert not is_over(None)


def test_every_state_is_entered_once_and_is_an_event(writer: StatusWriter, folder: RunFolder) -> None:
    writer.enter("resource_preparing", "making 2 machines")
    writer.enter("resource_preparing", "again")
    writer.enter("in_progress")

    assert list_events(folder) == ["resource_preparing", "in_progress"]
    assert [event.message for event, _ in read_events(folder.events)] == ["making 2 machines", "the run is in_progress"]


def test_the_file_is_what_the_writer_has_and_whole(writer: StatusWriter, folder: RunFolder) -> None:
    writer.enter("in_progress")

    assert read_status(folder) == writer.status
    assert not list(folder.root.glob(".*.tmp"))


def test_counts_and_usage_are_the_dispatchers(writer: StatusWriter, folder: RunFolder) -> None:
    assert writer.refresh().request_counts.total == 10

    write_progress(folder, make_progress(total=10, completed=7, failed=1))

    counts = writer.refresh().request_counts
    assert (counts.total, counts.completed, counts.failed) == (10, 7, 1)


def test_each_machine_has_the_stage_that_is_seen_of_it(writer: StatusWriter, folder: RunFolder) -> None:
    note_machine(folder, "boots", "created")
    note_machine(folder, "works", "created", index=1)
    note_machine(folder, "drains", "created", index=2)
    note_machine(folder, "gone", "created", "deleted", index=3)
    note_machine(folder, "unclear", "created", "unconfirmed", index=4)
    join_machine(folder, make_record(1, id="works"))
    join_machine(folder, make_record(2, id="drains"))
    write_progress(folder, make_progress(replicas=(ReplicaProgress(index=2, state="draining"),)))

    stages = {machine.id: machine.state for machine in writer.refresh().machines}

    assert stages == {
        "boots": "booting",
        "works": "joined",
        "drains": "draining",
        "gone": "gone",
        "unclear": "unconfirmed",
    }


def test_the_end_names_results_that_have_something_in_them(writer: StatusWriter, folder: RunFolder) -> None:
    folder.output.write_text("{}\n")
    folder.errors.touch()

    status = writer.end("completed", "verified", 0, "10 of 10 requests answered")

    assert (status.output_file, status.error_file) == (str(folder.output), None)
    assert is_over(status) and is_over(read_status(folder))
    assert list_events(folder)[-1] == "completed"


def test_a_final_state_without_its_end_is_not_over(writer: StatusWriter) -> None:
    writer.enter("completed")

    assert not is_over(writer.status)


def test_a_torn_status_is_none_and_not_an_error(folder: RunFolder) -> None:
    folder.status.write_bytes(b'{"run": "t')

    assert read_status(folder) is None


def test_a_dead_life_cycles_run_ends_by_what_its_dispatcher_said(writer: StatusWriter, folder: RunFolder) -> None:
    writer.enter("in_progress")
    folder.lifecycle.touch()
    write_progress(folder, make_progress("finished", total=10, completed=10))

    status = end_for_dead_lifecycle(folder, verified=True, message="")

    assert (status.state, status.exit_code, status.released) == ("completed", 0, "verified")
    assert "its life cycle died" in status.message


def test_a_dead_life_cycles_run_without_a_last_word_is_cancelled(writer: StatusWriter, folder: RunFolder) -> None:
    writer.enter("in_progress")
    write_progress(folder, make_progress("running"))

    assert end_for_dead_lifecycle(folder, verified=True, message="").exit_code == 7
    assert read_status(folder).state == "cancelled"  # type: ignore[union-attr]


def test_an_unproven_release_of_a_dead_run_is_12_and_says_why(writer: StatusWriter, folder: RunFolder) -> None:
    writer.enter("in_progress")

    status = end_for_dead_lifecycle(folder, verified=False, message="runpod p1 may be alive")

    assert (status.released, status.exit_code) == ("unverified", 12)
    assert status.message.endswith("\nrunpod p1 may be alive")


def test_a_later_release_keeps_how_the_run_ended(writer: StatusWriter, folder: RunFolder) -> None:
    writer.end("expired", "unverified", 12, "the time is used up\nrunpod p1 may be alive")

    status = end_for_dead_lifecycle(folder, verified=True, message="")

    assert (status.state, status.released, status.message) == ("expired", "verified", "the time is used up")
    assert status.exit_code == 8


def test_releases_that_fail_again_and_again_are_told_once(writer: StatusWriter, folder: RunFolder) -> None:
    writer.end("expired", "unverified", 12, "the time is used up\nfirst reason")

    for reason in ("second reason", "third reason"):
        status = end_for_dead_lifecycle(folder, verified=False, message=reason)

    assert status.message == "the time is used up\nthird reason"


def test_a_run_under_plain_pulumi_has_a_status_after_its_release(folder: RunFolder) -> None:
    status = end_for_dead_lifecycle(folder, verified=True, message="")

    assert msgspec.json.decode(folder.status.read_bytes(), type=Status) == status
    assert status.run == folder.run


def test_files_that_are_no_text_are_as_none(folder: RunFolder) -> None:
    folder.status.write_bytes(b'{"run": "\xff"}')
    folder.progress.write_bytes(b'{"state": "\xff"}')

    assert read_status(folder) is None
    assert read_progress(folder) is None
