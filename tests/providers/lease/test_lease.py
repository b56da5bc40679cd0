"""The lease record: opened once, revoked before it is swept, never lost silently."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import msgspec
import pytest

from providers.clock import SystemClock
from providers.lease.intents import append_intent, load_intents
from providers.lease.lease import (
    LeaseRecord,
    hold_open_lease,
    is_open,
    load_lease,
    mark_released,
    open_lease,
    rebuild_lease,
    require_open,
    revoke_lease,
)
from providers.lease.proof import CloudProof, Proof, SkippedCloud, TerminatedMachine
from schemas.errors import CancelledError, ExpiredError, LeaseholdError, ReleaseError
from schemas.names import make_machine_name
from tests.providers.scripted_cloud import PREFIX, START, TOKEN, FakeClock, make_intent

PROOF = Proof(
    prefix=PREFIX,
    revoked_at=START,
    proven_at=START + 9,
    clouds=(
        CloudProof(
            cloud="a",
            listings=(START + 5, START + 7),
            counted_from=START + 4,
            terminated=(
                TerminatedMachine(id="a-0", name="n", price_usd_per_hour=2.5, asked_at=START + 1, gone_at=START + 3),
            ),
            keys_removed=(f"{PREFIX}key-abcdef",),
        ),
    ),
    skipped=(SkippedCloud(cloud="b", reason="no key"),),
)


def open_one(run_dir: Path, token: str = TOKEN, run: str = "r1", clouds: tuple[str, ...] = ("a",)) -> LeaseRecord:
    return open_lease(
        run_dir, run=run, expires_at=int(START) + 3600, clouds=clouds, now=START, make_token=lambda: token
    )


def test_opening_twice_returns_the_first_lease(tmp_path: Path) -> None:
    first = open_one(tmp_path)
    second = open_one(tmp_path, token="zzzzzzzzzzzz")

    assert first == second == load_lease(tmp_path)
    assert (tmp_path / "lease.json").stat().st_mode & 0o777 == 0o600
    assert is_open(tmp_path)


def test_opening_again_with_another_cloud_adds_it_to_what_a_release_asks(tmp_path: Path) -> None:
    open_one(tmp_path)

    assert open_one(tmp_path, clouds=("b",)).clouds == ("a", "b")
    assert load_lease(tmp_path).clouds == ("a", "b")


def test_a_random_token_fits_into_names(tmp_path: Path) -> None:
    lease = open_lease(tmp_path, run="r1", expires_at=int(START) + 3600, clouds=("a",), now=START)

    assert make_machine_name(token=lease.token, index=0, attempt=1, expires_at=lease.expires_at)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    open_one(tmp_path)

    with pytest.raises(LeaseholdError, match="belongs to run r1, not r2"):
        open_one(tmp_path, run="r2")


def test_a_revoked_lease_is_not_opened_again_before_its_release_is_proven(tmp_path: Path) -> None:
    open_one(tmp_path)
    revoke_lease(tmp_path, clock=FakeClock(), timeout_s=1)

    with pytest.raises(CancelledError, match=r"was revoked(.|\n)*inv release r1"):
        open_one(tmp_path)


def test_after_a_proven_release_a_new_lease_begins_and_the_old_files_stay(tmp_path: Path) -> None:
    open_one(tmp_path)
    append_intent(tmp_path, make_intent(f"{PREFIX}0x1-t0rx80"))
    revoke_lease(tmp_path, clock=FakeClock(), timeout_s=1)
    mark_released(tmp_path, PROOF)

    made = open_one(tmp_path, token="zzzzzzzzzzzz")

    assert (made.token, made.state, made.proof) == ("zzzzzzzzzzzz", "open", None)
    assert load_intents(tmp_path).intents == ()
    assert load_intents(tmp_path).damaged == 0
    kept = msgspec.json.decode((tmp_path / f"lease-{TOKEN}.json").read_bytes(), type=LeaseRecord)
    assert kept.proof == PROOF
    assert (tmp_path / f"intents-{TOKEN}.jsonl").stat().st_size > 0


def test_the_proof_round_trips_through_the_record(tmp_path: Path) -> None:
    open_one(tmp_path)
    revoke_lease(tmp_path, clock=FakeClock(), timeout_s=1)

    mark_released(tmp_path, PROOF)

    assert load_lease(tmp_path).proof == PROOF
    assert load_lease(tmp_path).state == "released"
    assert PROOF.version == load_lease(tmp_path).version == 1


def test_an_open_lease_cannot_be_marked_released(tmp_path: Path) -> None:
    open_one(tmp_path)

    with pytest.raises(ReleaseError, match="must be revoked before"):
        mark_released(tmp_path, PROOF)


def test_revoking_twice_keeps_the_first_moment(tmp_path: Path) -> None:
    open_one(tmp_path)
    clock = FakeClock()
    first = revoke_lease(tmp_path, clock=clock, timeout_s=1)
    clock.sleep(100)

    assert revoke_lease(tmp_path, clock=clock, timeout_s=1) == first
    assert first.revoked_at == START


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"version": 1, "run": "r1", "tok', r"is torn(.|\n)*inv release"),
        (b"", "is torn"),
        (b'{"version": 1}', "is torn"),
        (b'{"version": 1, "run": "r\xff1"}', "is torn"),
        (b'{"version": 2, "something": "new"}', "newer Leasehold .version 2"),
        (None, r"is missing(.|\n)*may be alive"),
    ],
)
def test_a_record_that_cannot_be_read_says_what_to_do(tmp_path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / "lease.json").write_bytes(data)

    for read in (load_lease, is_open, lambda path: require_open(path, now=START)):
        with pytest.raises(ReleaseError, match=message):
            read(tmp_path)


@pytest.mark.parametrize("data", [None, b"{", b'{"version": 2}'])
def test_a_lost_record_beside_intents_is_never_replaced_by_a_new_lease(tmp_path: Path, data: bytes | None) -> None:
    open_one(tmp_path)
    append_intent(tmp_path, make_intent(f"{PREFIX}0x1-t0rx80"))
    (tmp_path / "lease.json").unlink()
    if data is not None:
        (tmp_path / "lease.json").write_bytes(data)

    with pytest.raises(ReleaseError):
        open_one(tmp_path, token="zzzzzzzzzzzz")
    assert len(load_intents(tmp_path).intents) == 1


def test_a_rebuilt_record_is_revoked_remembers_the_loss_and_keeps_the_torn_one(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_bytes(b"{torn")

    rebuild_lease(tmp_path, run="r1", token=TOKEN, clouds=["a"], expires_at=5, now=START)

    lease = load_lease(tmp_path)
    assert (lease.state, lease.rebuilt, lease.sealed) == ("revoked", True, False)
    assert (tmp_path / "lease.json.damaged").read_bytes() == b"{torn"
    assert revoke_lease(tmp_path, clock=FakeClock(), timeout_s=1).sealed


def test_nothing_is_held_under_a_lease_that_is_revoked_or_expired(tmp_path: Path) -> None:
    open_one(tmp_path)
    clock = FakeClock()

    clock.time = START + 3600
    with pytest.raises(ExpiredError, match="expired"), hold_open_lease(tmp_path, clock):
        pytest.fail("held an expired lease")
    clock.time = START
    revoke_lease(tmp_path, clock=clock, timeout_s=1)
    with pytest.raises(CancelledError), hold_open_lease(tmp_path, clock):
        pytest.fail("held a revoked lease")


def test_revocation_lets_nobody_new_start_and_waits_for_who_is_under_way(tmp_path: Path) -> None:
    open_one(tmp_path)
    clock = SystemClock()
    order: list[str] = []
    with hold_open_lease(tmp_path, FakeClock()):

        def revoke() -> None:
            revoke_lease(tmp_path, clock=clock, timeout_s=10)
            order.append("revoked")

        thread = threading.Thread(target=revoke)
        thread.start()
        deadline = time.monotonic() + 5
        while is_open(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with pytest.raises(CancelledError), hold_open_lease(tmp_path, FakeClock()):
            pytest.fail("a create began after the revocation")
        assert not load_lease(tmp_path).sealed
        order.append("create ended")
        ended_at = time.time()
    thread.join(timeout=10)

    assert order == ["create ended", "revoked"]
    assert load_lease(tmp_path).sealed
    assert load_lease(tmp_path).revoked_at >= ended_at


def test_revocation_gives_up_on_a_create_that_does_not_end_but_stays_revoked(tmp_path: Path) -> None:
    open_one(tmp_path)
    with (
        hold_open_lease(tmp_path, FakeClock()),
        pytest.raises(LeaseholdError, match="another process holds this lock"),
    ):
        revoke_lease(tmp_path, clock=FakeClock(), timeout_s=0.1)

    assert not is_open(tmp_path)
    assert not load_lease(tmp_path).sealed
    assert revoke_lease(tmp_path, clock=FakeClock(), timeout_s=1).sealed


def _create_until_revoked(run_dir: str, index: int) -> None:
    """What a provider process does, without a cloud: the line stands for the POST."""
    folder = Path(run_dir)
    for number in range(1, 500):
        try:
            with hold_open_lease(folder, FakeClock()):
                append_intent(folder, make_intent(f"{PREFIX}{index}x{number}-t0rx80", time=time.time()))
                time.sleep(0.002)
        except CancelledError:
            return


@pytest.mark.wire
def test_four_processes_create_at_once_and_none_after_the_revocation(tmp_path: Path) -> None:
    open_one(tmp_path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_create_until_revoked, args=(str(tmp_path), index)) for index in range(4)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 30
    while len({intent.index for intent in load_intents(tmp_path).intents}) < 4:
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.01)

    revoked = revoke_lease(tmp_path, clock=SystemClock(), timeout_s=10)
    count = len(load_intents(tmp_path).intents)
    for worker in workers:
        worker.join(timeout=20)

    log = load_intents(tmp_path)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert log.damaged == 0
    assert len(log.intents) == count
    assert max(intent.time for intent in log.intents) <= revoked.revoked_at
