"""The release: every machine of the lease ended, absence proven, and nothing called proven that is not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.clock import SystemClock, Waits
from providers.closed_cloud import ClosedCloud
from providers.cloud import Cloud
from providers.lease.intents import UNKNOWN_LOG, IntentLog, append_intent, load_intents
from providers.lease.lease import INTENTS_FILE, LEASE_FILE, hold_open_lease, load_lease, open_lease
from providers.lease.proof import Proof, UnprovenRelease
from providers.lease.sweep import release_lease, sweep_lease
from providers.lease.termination import give_back, load_unconfirmed
from schemas.errors import CredentialError, RateLimited, ReleaseError, RetiredApi
from schemas.names import make_key_name, make_machine_name
from tests.providers.scripted_cloud import (
    PREFIX,
    START,
    TOKEN,
    FakeClock,
    KeyedScriptedCloud,
    ScriptedCloud,
    make_intent,
)

SETTLE_S = 90.0
WAITS = Waits(request_timeout_s=60.0, poll_s=2.0, terminate_s=20.0, give_up_s=120.0)
WINDOW_S = SETTLE_S + WAITS.request_timeout_s
DEADLINE_S = 300.0
EXPIRY = int(START) + 36_000
NAME = make_machine_name(token=TOKEN, index=0, attempt=1, expires_at=EXPIRY)
OTHER = make_machine_name(token=TOKEN, index=1, attempt=1, expires_at=EXPIRY)
STRANGER = make_machine_name(token="zzzzzzzzzzzz", index=0, attempt=1, expires_at=EXPIRY)
KEY = make_key_name(token=TOKEN, expires_at=EXPIRY)


class Bench:
    """An open lease on two clouds, an hour after it began."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.clock = FakeClock()
        self.a = KeyedScriptedCloud("a", self.clock)
        self.b = ScriptedCloud("b", self.clock)
        self.clouds: dict[str, Cloud] = {"a": self.a, "b": self.b}
        self.events: list[str] = []
        open_lease(run_dir, run="r1", expires_at=EXPIRY, clouds=("a", "b"), now=START, make_token=lambda: TOKEN)
        self.clock.time = START + 3600

    def make(
        self, name: str = NAME, cloud: ScriptedCloud | None = None, *, age_s: float = 3600.0, **fields: Any
    ) -> str:
        """A machine whose create was answered."""
        cloud = cloud or self.a
        machine = cloud.add_foreign(name, **fields)
        sent_at = self.clock.time - age_s
        append_intent(self.run_dir, make_intent(name, cloud=cloud.name, time=sent_at))
        append_intent(
            self.run_dir,
            make_intent(name, cloud=cloud.name, time=sent_at, kind="answer", outcome="created", id=machine.id),
        )
        return machine.id

    def send_unclear(self, name: str = NAME, cloud: ScriptedCloud | None = None) -> None:
        """A create a second ago whose answer nobody has."""
        cloud = cloud or self.a
        append_intent(self.run_dir, make_intent(name, cloud=cloud.name, time=self.clock.time - 1))

    def release(self, token: str | None = TOKEN, **options: Any) -> Proof:
        values: dict[str, Any] = {
            "run": "r1",
            "clouds": self.clouds,
            "clock": self.clock,
            "settle_s": SETTLE_S,
            "deadline_s": DEADLINE_S,
            "waits": WAITS,
            "on_event": lambda event, message, data: self.events.append(event),
            "consoles": {"a": "https://console.a.example/machines"},
        }
        return release_lease(self.run_dir, token=token, **(values | options))

    def listings(self, cloud: ScriptedCloud) -> list[float]:
        return [call.time for call in cloud.calls if call.operation == "list"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_machine_of_the_lease_is_ended_and_the_proof_is_in_the_record(bench: Bench) -> None:
    ids = {bench.make(NAME), bench.make(OTHER, bench.b)}
    start = bench.clock.time

    proof = bench.release()

    lease = load_lease(bench.run_dir)
    assert (lease.state, lease.proof) == ("released", proof)
    assert {machine.id for cloud in proof.clouds for machine in cloud.terminated} == ids
    assert bench.a.alive == bench.b.alive == []
    for cloud in proof.clouds:
        (machine,) = cloud.terminated
        assert start == machine.asked_at < machine.gone_at <= cloud.listings[0] < cloud.listings[1] <= proof.proven_at
        assert machine.price_usd_per_hour == 2.5
    assert bench.clock.time - start == 2 * WAITS.poll_s
    assert proof.revoked_at == lease.revoked_at == start
    assert msgspec.json.decode(msgspec.json.encode(proof), type=Proof) == proof


def test_a_run_that_made_nothing_is_proven_by_two_listings(bench: Bench) -> None:
    proof = bench.release()

    assert len(bench.listings(bench.a)) == len(bench.listings(bench.b)) == 2
    assert [cloud.listings for cloud in proof.clouds] == [(START + 3600, START + 3602)] * 2


@pytest.mark.parametrize("name", [STRANGER, "somebodys-machine", "lh-", f"lh-{TOKEN}", f"lh-{TOKEN[:-1]}-0x1-t0rx80"])
def test_machines_of_others_are_never_touched(bench: Bench, name: str) -> None:
    bench.make()
    foreign = bench.a.add_foreign(name)

    bench.release()

    assert bench.a.alive == [foreign]
    assert foreign.asked == 0


def test_five_hundred_foreign_machines_do_not_hide_ours(bench: Bench) -> None:
    for number in range(250):
        bench.a.add_foreign(make_machine_name(token="zzzzzzzzzzzz", index=number, attempt=1, expires_at=EXPIRY))
        bench.a.add_foreign(f"web-{number}")
    bench.make()

    bench.release()

    assert len(bench.a.alive) == 500
    assert sum(machine.asked for machine in bench.a.machines) == 1


@pytest.mark.parametrize("outcome", ["", "unclear", "absent"])
def test_with_an_unresolved_create_only_listings_after_the_whole_window_count(bench: Bench, outcome: str) -> None:
    bench.send_unclear()
    if outcome:
        bench_answer = make_intent(NAME, kind="answer", outcome=outcome)
        append_intent(bench.run_dir, bench_answer)

    proof = bench.release()

    by_cloud = {cloud.cloud: cloud for cloud in proof.clouds}
    assert all(listing >= proof.revoked_at + WINDOW_S for listing in by_cloud["a"].listings)
    assert by_cloud["a"].counted_from == proof.revoked_at + WINDOW_S
    assert by_cloud["b"].listings[0] == proof.revoked_at
    assert max(bench.listings(bench.a)) <= proof.revoked_at + WINDOW_S + 2 * WAITS.poll_s


@pytest.mark.parametrize("late_s", [60.0, WINDOW_S - 2])
def test_a_machine_that_appears_after_many_empty_listings_is_still_found(bench: Bench, late_s: float) -> None:
    bench.send_unclear()
    bench.a.add_foreign(NAME, visible_at=bench.clock.time + late_s)

    proof = bench.release()

    assert bench.a.alive == []
    assert [machine.id for machine in proof.clouds[0].terminated] == ["a-0"]


@pytest.mark.parametrize("reaches_hidden", [True, False])
def test_a_machine_made_a_moment_ago_is_not_proven_gone_by_listings_that_do_not_show_it_yet(
    bench: Bench, reaches_hidden: bool
) -> None:
    bench.make(age_s=1, visible_at=bench.clock.time + 60)
    bench.a.delete_reaches_hidden = reaches_hidden

    proof = bench.release()

    assert bench.a.alive == []
    assert proof.clouds[0].listings[0] >= bench.clock.time - 100


def test_a_machine_given_back_before_it_was_listed_is_not_taken_for_gone(bench: Bench) -> None:
    id = bench.make(age_s=1, visible_at=bench.clock.time + 60)
    bench.a.delete_reaches_hidden = False
    give_back(
        bench.run_dir,
        cloud=bench.a,
        cloud_name="a",
        id=id,
        name=NAME,
        price_usd_per_hour=2.5,
        clock=bench.clock,
    )

    bench.release()

    assert bench.a.alive == []


def test_the_twin_of_an_adopted_machine_is_waited_for(bench: Bench) -> None:
    bench.a.add_foreign(NAME)
    bench.a.add_foreign(NAME, visible_at=bench.clock.time + 60)
    for line in ({}, {"kind": "answer", "outcome": "unclear"}, {"kind": "resolved", "outcome": "adopted", "id": "a-0"}):
        append_intent(bench.run_dir, make_intent(NAME, time=bench.clock.time - 1, **line))

    bench.release()

    assert bench.a.alive == []


def test_a_machine_known_by_id_is_ended_though_no_listing_shows_its_name(bench: Bench) -> None:
    """Somebody renamed it on the cloud's web page."""
    bench.make()
    bench.a.machines[0].name = "renamed"
    bench.a.delete_lag_s = 60

    bench.release()

    assert bench.a.alive == []


@pytest.mark.parametrize("lag_s", [0.0, 60.0])
def test_deletes_that_answer_500_and_deletes_that_lag_are_seen_through(bench: Bench, lag_s: float) -> None:
    bench.make(NAME)
    bench.make(OTHER)
    bench.a.delete_500s = 3
    bench.a.delete_lag_s = lag_s

    proof = bench.release()

    assert bench.a.alive == []
    assert proof.clouds[0].listings[0] >= START + 3600 + lag_s


def test_stale_listings_that_come_and_go_do_not_make_a_proof(bench: Bench) -> None:
    bench.make()
    ages = iter([0.0, 9.0, 0.0, 9.0, 0.0, 9.0, *[0.0] * 999])
    bench.a.stale_s = lambda: next(ages)

    proof = bench.release()

    assert bench.a.alive == []
    first, second = proof.clouds[0].listings
    calls = [call for call in bench.a.calls if call.operation == "list" and first <= call.time <= second]
    assert [call.outcome for call in calls] == ["none", "none"]


def test_a_listing_that_failed_breaks_the_row(bench: Bench) -> None:
    listing, answers = bench.b.list_ours, iter([True, False, True, True])

    def list_unless_broken(prefix: str) -> Any:
        if not next(answers):
            raise KeyError("something")
        return listing(prefix)

    bench.b.list_ours = list_unless_broken  # type: ignore[method-assign]

    proof = bench.release()

    assert proof.clouds[1].listings == (START + 3604, START + 3606)


def test_a_cloud_that_is_down_for_two_minutes_delays_the_proof_but_not_the_other_cloud_s_machines(bench: Bench) -> None:
    bench.make(NAME)
    bench.make(OTHER, bench.b)
    bench.a.down_until = bench.clock.time + 120

    proof = bench.release()

    assert bench.a.alive == bench.b.alive == []
    (machine,) = proof.clouds[1].terminated
    assert machine.asked_at == START + 3600
    assert proof.clouds[0].terminated[0].asked_at >= START + 3720


def test_rate_limits_are_waited_out(bench: Bench) -> None:
    for number in range(5):
        bench.make(make_machine_name(token=TOKEN, index=number, attempt=1, expires_at=EXPIRY))
    bench.a.rate_limits = 4

    bench.release()

    assert bench.a.alive == []


def test_a_quota_that_lets_every_second_look_through_is_enough_for_a_proof(bench: Bench) -> None:
    listing, turns = bench.b.list_ours, itertools.count()

    def list_every_second_time(prefix: str) -> Any:
        if next(turns) % 2:
            raise RateLimited("slow down", where="b", status=429)
        return listing(prefix)

    bench.b.list_ours = list_every_second_time  # type: ignore[method-assign]

    proof = bench.release()

    assert proof.clouds[1].listings == (START + 3600, START + 3604)


def test_a_machine_that_shows_between_two_empty_listings_breaks_the_row_though_its_end_is_rate_limited(
    bench: Bench,
) -> None:
    bench.make(NAME, bench.b)
    listing, views = bench.b.list_ours, iter([False, True, False, False, False])
    bench.b.list_ours = lambda prefix: listing(prefix) if next(views, True) else []  # type: ignore[method-assign]
    bench.b.find = lambda _id: None  # type: ignore[method-assign]
    ending, answers = bench.b.terminate, iter(["lost", "limited"])

    def end(id: str) -> None:
        answer = next(answers, "")
        if answer == "limited":
            raise RateLimited("slow down", where="b", status=429)
        if not answer:
            ending(id)

    bench.b.terminate = end  # type: ignore[method-assign]

    proof = bench.release()

    assert proof.clouds[1].listings[0] > START + 3602


def test_keys_of_the_lease_are_removed_after_the_machines_and_others_stay(bench: Bench) -> None:
    foreign = make_key_name(token="zzzzzzzzzzzz", expires_at=EXPIRY)
    bench.a.keys = {KEY: "k", foreign: "k", "mine": "k"}
    bench.make()

    proof = bench.release()

    assert set(bench.a.keys) == {foreign, "mine"}
    assert proof.clouds[0].keys_removed == (KEY,)
    removed = next(call.time for call in bench.a.calls if call.operation == "remove_key")
    assert removed >= proof.clouds[0].terminated[0].gone_at


def test_a_key_that_cannot_be_removed_is_no_proof(bench: Bench) -> None:
    bench.a.keys = {KEY: "k"}
    bench.a.remove_key = lambda name: None  # type: ignore[method-assign]

    with pytest.raises(ReleaseError, match=f"the SSH key {KEY} is still in the account"):
        bench.release()


def test_a_cloud_without_credentials_is_skipped_when_no_create_ever_named_it(bench: Bench) -> None:
    bench.make()
    bench.clouds["b"] = ClosedCloud(CredentialError("no key is set"))

    proof = bench.release()

    assert [(each.cloud, each.reason) for each in proof.skipped] == [("b", "no key is set")]
    assert [each.cloud for each in proof.clouds] == ["a"]


def test_a_cloud_that_has_no_client_at_all_counts_as_one_without_credentials(bench: Bench) -> None:
    bench.make()
    del bench.clouds["b"]
    assert bench.release().skipped[0].cloud == "b"

    del bench.clouds["a"]
    with pytest.raises(UnprovenRelease, match="no client for cloud a"):
        bench.release()


@pytest.mark.parametrize("outcome", ["", "refused", "no_capacity"])
def test_a_cloud_that_a_create_named_is_never_skipped(bench: Bench, outcome: str) -> None:
    append_intent(bench.run_dir, make_intent(NAME, cloud="b"))
    if outcome:
        append_intent(bench.run_dir, make_intent(NAME, cloud="b", kind="answer", outcome=outcome))
    bench.b.refuses_key = True

    with pytest.raises(UnprovenRelease, match="the key was refused"):
        bench.release()


def test_a_retired_api_is_never_skipped(bench: Bench) -> None:
    bench.clouds["b"] = ClosedCloud(RetiredApi("gone for good", status=410))

    with pytest.raises(UnprovenRelease, match="gone for good"):
        bench.release()


def test_a_key_revoked_midway_is_told_with_price_and_command_and_release_finishes_when_it_is_back(bench: Bench) -> None:
    bench.make(NAME)
    bench.make(OTHER)
    bench.a.delete_lag_s = 60
    bench.clock.at(10, lambda: setattr(bench.a, "refuses_key", True))

    with pytest.raises(UnprovenRelease) as caught:
        bench.release()

    assert caught.value.exit_code == 12
    assert {machine.id for machine in caught.value.left} == {"a-0", "a-1"}
    assert caught.value.usd_per_hour == 5.0
    text = str(caught.value)
    assert all(word in text for word in (f"a a-0 {NAME} at 2.50 USD/h", "the key was refused", "console.a.example"))
    assert text.endswith("They may cost 5.00 USD per hour until you run `./inv release r1`")
    assert bench.clock.time < START + 3700
    assert load_lease(bench.run_dir).state == "revoked"
    bench.a.refuses_key = False
    bench.release()
    assert load_lease(bench.run_dir).state == "released"
    assert bench.a.alive == []


def test_a_machine_that_does_not_go_is_named_at_the_deadline(bench: Bench) -> None:
    bench.make()
    bench.a.delete_lag_s = 9_999

    with pytest.raises(UnprovenRelease, match="machine a-0 is still listed"):
        bench.release()
    assert START + 3600 + DEADLINE_S - WAITS.poll_s <= bench.clock.time <= START + 3600 + DEADLINE_S


def test_a_create_of_which_nothing_is_known_is_named_when_its_cloud_does_not_answer(bench: Bench) -> None:
    bench.send_unclear()
    bench.a.down_until = START + 99_999

    with pytest.raises(UnprovenRelease, match=rf"a \(id unknown\) {NAME} at 2\.50 USD/h(.|\n)*503"):
        bench.release()


def test_the_deadline_never_ends_before_listings_count(bench: Bench) -> None:
    bench.send_unclear()

    assert bench.release(deadline_s=5.0).clouds[0].listings[0] >= START + 3600 + WINDOW_S


@pytest.mark.parametrize("damage", ["torn", "missing"])
@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_lost_record_costs_time_and_certainty_but_no_machine(bench: Bench, damage: str, token: str | None) -> None:
    bench.make()
    path = bench.run_dir / LEASE_FILE
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:40])
    else:
        path.unlink()

    proof = bench.release(token)

    assert bench.a.alive == []
    assert all(listing >= proof.revoked_at + WINDOW_S for cloud in proof.clouds for listing in cloud.listings)
    assert load_lease(bench.run_dir).state == "released"


@pytest.mark.parametrize("damage", ["record", "log", "both"])
def test_after_a_loss_no_cloud_is_skipped_also_not_the_second_time(bench: Bench, damage: str) -> None:
    bench.make()
    bench.b.refuses_key = True
    if damage in ("record", "both"):
        (bench.run_dir / LEASE_FILE).unlink()
    if damage in ("log", "both"):
        (bench.run_dir / INTENTS_FILE).unlink()

    for _ in range(2):
        with pytest.raises(UnprovenRelease, match=r"b: .*the key was refused"):
            bench.release()
    assert bench.a.alive == []


def test_a_folder_that_lost_everything_says_how_to_go_on(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bench.run_dir = tmp_path / "empty"

    with pytest.raises(ReleaseError, match=r"no token is left(.|\n)*inv release TOKEN --force"):
        bench.release(None)


def test_a_token_alone_is_enough_on_another_computer(bench: Bench, tmp_path: Path) -> None:
    bench.make()
    bench.run_dir = tmp_path / "elsewhere"

    proof = bench.release()

    assert bench.a.alive == []
    assert {cloud.cloud for cloud in proof.clouds} == {"a", "b"}


def test_a_sweep_by_token_needs_no_folder(bench: Bench) -> None:
    bench.make()

    proof = sweep_lease(
        PREFIX,
        bench.clouds,
        planned=(),
        log=UNKNOWN_LOG,
        revoked_at=bench.clock.time,
        clock=bench.clock,
        settle_s=SETTLE_S,
        deadline_s=DEADLINE_S,
        release_command=f"./inv release {TOKEN} --force",
        on_event=lambda *_: None,
        waits=WAITS,
    )

    assert len(proof.clouds) == 2
    assert bench.a.alive == []


def test_a_sweep_of_no_cloud_is_no_proof(bench: Bench) -> None:
    with pytest.raises(ReleaseError, match="no cloud is known"):
        sweep_lease(
            PREFIX,
            {},
            planned=(),
            log=IntentLog(),
            revoked_at=bench.clock.time,
            clock=bench.clock,
            settle_s=SETTLE_S,
            deadline_s=DEADLINE_S,
            release_command="./inv release r1",
            on_event=lambda *_: None,
        )


def test_a_record_of_a_newer_version_is_left_as_it_is(bench: Bench) -> None:
    (bench.run_dir / LEASE_FILE).write_bytes(b'{"version": 2}')

    with pytest.raises(ReleaseError, match="newer Leasehold"):
        bench.release()
    assert (bench.run_dir / LEASE_FILE).read_bytes() == b'{"version": 2}'


def test_a_create_that_hangs_in_another_process_is_no_proof_but_what_is_there_is_ended(bench: Bench) -> None:
    bench.make()

    with (
        hold_open_lease(bench.run_dir, FakeClock()),
        pytest.raises(ReleaseError, match="still under way in another process"),
    ):
        bench.release(waits=msgspec.structs.replace(WAITS, request_timeout_s=-29.9))
    assert bench.a.alive == []
    assert load_lease(bench.run_dir).state == "revoked"
    bench.release()
    assert load_lease(bench.run_dir).state == "released"


def test_releasing_again_proves_again(bench: Bench) -> None:
    bench.make()
    first = bench.release()

    second = bench.release()

    assert second.proven_at > first.proven_at
    assert load_lease(bench.run_dir).proof == second


def test_a_folder_with_a_newer_lease_is_not_revoked_by_the_release_of_an_old_one(bench: Bench) -> None:
    old = make_machine_name(token="zzzzzzzzzzzz", index=0, attempt=1, expires_at=EXPIRY)
    bench.a.add_foreign(old)
    mine = bench.make()

    bench.release("zzzzzzzzzzzz")

    assert [machine.id for machine in bench.a.alive] == [mine]
    assert load_lease(bench.run_dir).state == "open"


def test_a_proven_release_clears_the_list_of_unconfirmed_machines(bench: Bench) -> None:
    id = bench.make()
    bench.a.delete_lag_s = 40
    give_back(bench.run_dir, cloud=bench.a, cloud_name="a", id=id, name=NAME, price_usd_per_hour=2.5, clock=bench.clock)
    assert len(load_unconfirmed(bench.run_dir)) == 1

    bench.release()

    assert load_unconfirmed(bench.run_dir) == ()


def test_a_wall_clock_that_is_set_forward_does_not_shorten_the_window(bench: Bench) -> None:
    bench.send_unclear()
    bench.a.add_foreign(NAME, visible_at=bench.clock.time + 3600 + 100)
    skew = 0.0
    bench.clock.now = lambda: bench.clock.time + skew  # type: ignore[method-assign]

    def jump() -> None:
        nonlocal skew
        skew = 3600.0

    bench.clock.at(10, jump)
    start = bench.clock.monotonic()
    bench.release()

    assert bench.clock.monotonic() - start >= WINDOW_S


def test_with_the_real_clock_a_release_of_nothing_takes_one_poll(bench: Bench) -> None:
    bench.release(clock=SystemClock(), waits=Waits(poll_s=0.05))

    assert load_lease(bench.run_dir).state == "released"
    assert load_intents(bench.run_dir).intents == ()
