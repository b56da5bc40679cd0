from __future__ import annotations

import json
from pathlib import Path

import pytest

from providers.lease.lease import mark_released, revoke_lease
from providers.lease.proof import CloudProof, Proof, TerminatedMachine
from stacks.releasing.release_speed import ReleaseSpeed, measure_release, note_release_speed
from stacks.run_folder import RunFolder
from tests.providers.scripted_cloud import FakeClock
from tests.stacks.run_files import START, make_folder, make_lease, make_progress, note_machine, write_progress


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that had its last result at START + 100."""
    made = make_folder(tmp_path)
    make_lease(made)
    write_progress(made, make_progress("finished", ended_at=START + 100))
    return made


def prove(folder: RunFolder, at: float, *terminated: TerminatedMachine) -> None:
    clouds = (CloudProof(cloud="local", listings=(at - 2, at - 1), counted_from=START, terminated=terminated),)
    revoke_lease(folder.root, clock=FakeClock(), timeout_s=5)
    mark_released(folder.root, Proof(prefix="lh-", revoked_at=START, proven_at=at, clouds=clouds))


def test_it_counts_from_the_last_result_to_the_last_machine_and_to_the_proof(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created", "deleted", at=START + 41)
    note_machine(folder, "m1", "created", "deleted", index=1, at=START + 43)
    prove(folder, START + 105)

    assert measure_release(folder) == ReleaseSpeed(gone_s=3, proven_s=5)
    note_release_speed(folder)
    event = json.loads(folder.events.read_text().splitlines()[-1])
    assert (event["event"], event["data"]) == ("machines_gone", {"gone_s": 3.0, "proven_s": 5.0})


def test_a_machine_that_the_sweep_ended_is_gone_when_the_sweep_saw_it_gone(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created")
    swept = TerminatedMachine(id="m0", name="", price_usd_per_hour=0, asked_at=START + 101, gone_at=START + 104)
    prove(folder, START + 109, swept)

    assert measure_release(folder) == ReleaseSpeed(gone_s=4, proven_s=9)


def test_a_machine_that_nobody_saw_go_is_gone_with_the_proof(folder: RunFolder) -> None:
    note_machine(folder, "m0", "created", "unconfirmed")
    prove(folder, START + 109)

    assert measure_release(folder) == ReleaseSpeed(gone_s=9, proven_s=9)


def test_without_a_proof_a_result_or_a_machine_there_is_nothing_to_tell(folder: RunFolder) -> None:
    assert measure_release(folder) is None
    note_machine(folder, "m0", "created", "deleted")
    assert measure_release(folder) is None
    prove(folder, START + 105)
    folder.progress.unlink()
    note_release_speed(folder)

    assert not folder.events.exists()
