"""Getting one machine: never blindly twice, never after the revocation, and what a dead process made is found."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.clock import Waits
from providers.closed_cloud import ClosedCloud
from providers.cloud import Cloud, LaunchRequest, Offer
from providers.lease.acquisition import acquire_machine
from providers.lease.intents import IntentLog, append_intent, fold_histories, load_intents, make_offer_key, unresolved
from providers.lease.lease import INTENTS_FILE, is_open, open_lease, revoke_lease
from providers.lease.settling import AcquiredMachine, UnsettledCreate
from providers.lease.strays import end_strays, may_have_strays
from providers.lease.termination import give_back, load_unconfirmed
from schemas.errors import (
    CancelledError,
    CloudError,
    CredentialError,
    ExpiredError,
    LeaseholdError,
    NoCapacity,
    RequestRefused,
    UnclearOutcome,
)
from schemas.names import parse_machine_name
from tests.providers.scripted_cloud import (
    START,
    TOKEN,
    FakeClock,
    Killed,
    ScriptedCloud,
    find_blind_creates,
    make_intent,
    make_offer,
    make_request,
    step_on_appends,
)

SETTLE_S = 90.0
WAITS = Waits(request_timeout_s=60.0, poll_s=3.0, terminate_s=20.0, give_up_s=120.0)
WINDOW_S = SETTLE_S + WAITS.request_timeout_s


class Bench:
    """Two clouds, a lease that is open, and acquisitions with short words."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.clock = FakeClock()
        self.steps = self.clock.steps
        self.a = ScriptedCloud("a", self.clock, run_dir=run_dir)
        self.b = ScriptedCloud("b", self.clock, run_dir=run_dir)
        self.clouds: dict[str, Cloud] = {"a": self.a, "b": self.b}
        self.offers = [make_offer("a"), make_offer("b")]
        self.events: list[str] = []
        self.make_request: Callable[[str, Offer], LaunchRequest] = make_request
        open_lease(
            run_dir,
            run="r1",
            expires_at=int(START) + 36_000,
            clouds=("a", "b"),
            now=START,
            make_token=lambda: TOKEN,
        )

    def acquire(self, index: int = 0, attempt: int = 0, **options: Any) -> AcquiredMachine:
        values: dict[str, Any] = {
            "offers": self.offers,
            "make_request": self.make_request,
            "clouds": self.clouds,
            "clock": self.clock,
            "settle_s": SETTLE_S,
            "waits": WAITS,
            "on_event": lambda event, message, data: self.events.append(event),
        }
        return acquire_machine(self.run_dir, index=index, attempt=attempt, **(values | options))

    def give_back(self, machine: AcquiredMachine, **options: Any) -> bool:
        return give_back(
            self.run_dir,
            cloud=self.clouds[machine.cloud],
            cloud_name=machine.cloud,
            id=machine.id,
            name=machine.name,
            price_usd_per_hour=machine.price_usd_per_hour,
            clock=self.clock,
            **options,
        )

    def revoke(self) -> None:
        revoke_lease(self.run_dir, clock=self.clock, timeout_s=1)

    def creates(self, cloud: ScriptedCloud) -> list[str]:
        return [call.outcome for call in cloud.calls if call.operation == "launch"]

    def outcomes(self) -> list[str]:
        return [history.outcome for history in fold_histories(load_intents(self.run_dir).intents)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_machine_is_made_with_one_create_and_its_record_is_on_disk(bench: Bench) -> None:
    machine = bench.acquire()

    assert (machine.cloud, machine.id, machine.adopted, machine.offer) == ("a", "a-0", False, bench.offers[0])
    assert (machine.price_usd_per_hour, machine.created_at) == (2.5, START)
    parsed = parse_machine_name(machine.name)
    assert parsed is not None
    assert (parsed.token, parsed.index, parsed.attempt, parsed.expires_at) == (TOKEN, 0, 1, int(START) + 36_000)
    assert [(each.kind, each.outcome, each.id) for each in load_intents(bench.run_dir).intents] == [
        ("intent", "", ""),
        ("answer", "created", "a-0"),
    ]
    assert bench.creates(bench.a) == ["created"]
    assert bench.clock.slept_s == 0


def test_without_capacity_the_next_offer_is_taken_at_once(bench: Bench) -> None:
    bench.a.launch_faults.append("no_capacity")

    machine = bench.acquire()

    assert (machine.cloud, bench.clock.slept_s) == ("b", 0)
    assert bench.outcomes() == ["no_capacity", "created"]


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        (
            ("no_capacity", "no_capacity"),
            NoCapacity,
            r"1\. a H100 x1 r1 at 2\.50 USD/h: no H100 left here\n *2\. b H100",
        ),
        (("refused", "no_capacity"), NoCapacity, r"1\. a .*field gpu is wrong\n *2\. b "),
        (("refused", "refused"), RequestRefused, "field gpu is wrong"),
        (("no_key", "no_key"), CredentialError, "the key was refused"),
        (("no_key", "refused"), RequestRefused, "field gpu is wrong"),
        (("no_key", "no_capacity"), NoCapacity, r"1\. a .*the key was refused\n"),
        (("failed", "refused"), CloudError, "the quota is used up"),
    ],
)
def test_when_every_offer_fails_the_error_says_why(
    bench: Bench, faults: tuple[str, str], error: type[Exception], words: str
) -> None:
    bench.a.launch_faults.append(faults[0])
    bench.b.launch_faults.append(faults[1])

    with pytest.raises(error, match=words) as caught:
        bench.acquire()
    assert type(caught.value) is error
    assert bench.a.machines == bench.b.machines == []
    assert unresolved(bench.run_dir) == ()


def test_a_refused_request_goes_to_the_next_candidate(bench: Bench) -> None:
    bench.a.launch_faults.append("refused")

    assert bench.acquire().cloud == "b"


def test_a_cloud_whose_key_is_refused_gets_no_second_create(bench: Bench) -> None:
    bench.offers = [make_offer("a", "r1"), make_offer("a", "r2"), make_offer("b")]
    bench.a.launch_faults.append("no_key")

    assert bench.acquire().cloud == "b"
    assert bench.creates(bench.a) == ["no_key"]


def test_a_cloud_without_a_client_is_passed_over(bench: Bench) -> None:
    bench.clouds["a"] = ClosedCloud(CredentialError("no key is set"))

    assert bench.acquire().cloud == "b"


def test_left_out_offers_are_not_tried(bench: Bench) -> None:
    assert bench.acquire(left_out={make_offer_key(bench.offers[0])}).cloud == "b"
    assert bench.creates(bench.a) == []
    with pytest.raises(NoCapacity, match="tried in this order: none"):
        bench.acquire(index=1, left_out={make_offer_key(offer) for offer in bench.offers})


def test_too_many_requests_waits_as_told_and_asks_for_the_same_offer(bench: Bench) -> None:
    bench.a.launch_faults.extend(["rate_limited", "rate_limited"])

    machine = bench.acquire()

    assert (machine.cloud, bench.clock.slept_s) == ("a", 24)
    assert len(bench.a.machines) == 1


def test_too_many_requests_for_too_long_goes_to_the_next_offer(bench: Bench) -> None:
    bench.a.launch_faults.extend(["rate_limited"] * 99)

    assert bench.acquire().cloud == "b"
    assert bench.clock.slept_s <= WAITS.give_up_s


@pytest.mark.parametrize("late_s", [0.0, 60.0, 89.0 + 60.0])
def test_an_unclear_create_that_made_one_is_adopted_when_it_shows(bench: Bench, late_s: float) -> None:
    bench.a.launch_faults.append("late")
    bench.a.late_s = late_s

    machine = bench.acquire()

    assert (machine.cloud, machine.id, machine.adopted) == ("a", "a-0", True)
    assert machine.name == bench.a.machines[0].name
    assert bench.creates(bench.a) == ["unclear"]
    assert bench.creates(bench.b) == []
    assert bench.outcomes() == ["adopted"]


@pytest.mark.parametrize("tells_created_at", [True, False])
def test_of_two_machines_of_one_create_the_older_is_kept(bench: Bench, tells_created_at: bool) -> None:
    bench.a.launch_faults.append("twice")
    bench.a.tells_created_at = tells_created_at

    machine = bench.acquire()

    assert machine.id == "a-0"
    assert [each.id for each in bench.a.alive] == ["a-0"]
    assert bench.outcomes() == ["adopted"]
    assert fold_histories(load_intents(bench.run_dir).intents)[0].gone_ids == ("a-1",)


def test_an_unclear_create_that_made_nothing_is_repeated_under_a_new_name_only_after_the_window(bench: Bench) -> None:
    bench.a.launch_faults.append("lost")

    machine = bench.acquire()

    launches = [call for call in bench.a.calls if call.operation == "launch"]
    looks = [call for call in bench.a.calls if call.operation == "list"]
    assert (machine.cloud, machine.adopted) == ("a", False)
    assert launches[0].argument != launches[1].argument
    assert launches[1].time - launches[0].time >= SETTLE_S
    assert looks[-1].time - launches[0].time >= SETTLE_S
    assert all(later.time - earlier.time <= 4 for earlier, later in itertools.pairwise(looks))
    assert bench.outcomes() == ["absent", "created"]
    assert [each.name for each in unresolved(bench.run_dir)] == [launches[0].argument]


def test_an_offer_that_swallows_creates_is_left_after_two(bench: Bench) -> None:
    bench.a.launch_faults.extend(["lost"] * 9)

    assert bench.acquire().cloud == "b"
    assert bench.creates(bench.a) == ["unclear", "unclear"]


def test_offers_that_all_swallow_creates_are_a_cloud_failure(bench: Bench) -> None:
    bench.a.launch_faults.extend(["lost"] * 2)
    bench.b.launch_faults.extend(["lost"] * 2)

    with pytest.raises(UnclearOutcome):
        bench.acquire()
    assert len(unresolved(bench.run_dir)) == 4


def test_while_the_cloud_is_down_nothing_else_is_created(bench: Bench) -> None:
    """It tells nothing about the unclear create: going on, even elsewhere, would be blind."""
    bench.a.launch_faults.append("made")
    bench.clock.at(60, lambda: setattr(bench.a, "down_until", START + 3600))

    with pytest.raises(UnsettledCreate, match=r"503(.|\n)*inv release r1"):
        bench.acquire()

    assert bench.creates(bench.b) == []
    assert [each.outcome for each in unresolved(bench.run_dir)] == ["unclear"]
    bench.a.down_until = 0.0
    assert bench.acquire().id == "a-0"


def test_a_cloud_that_is_down_for_two_minutes_is_waited_for(bench: Bench) -> None:
    bench.a.launch_faults.append("made")
    bench.clock.at(60, lambda: setattr(bench.a, "down_until", bench.clock.time + 120))

    assert bench.acquire().id == "a-0"
    assert bench.creates(bench.a) == ["unclear"]


def test_a_key_refused_while_a_create_is_unclear_stops_the_acquisition(bench: Bench) -> None:
    bench.a.launch_faults.append("made")
    bench.clock.at(60, lambda: setattr(bench.a, "refuses_key", True))

    with pytest.raises(UnsettledCreate, match="the key was refused"):
        bench.acquire()
    assert bench.creates(bench.b) == []


def test_a_repeated_create_of_the_same_attempt_adopts_what_the_first_made(bench: Bench) -> None:
    first = bench.acquire()
    again = bench.acquire()

    assert (again.id, again.name, again.created_at, again.adopted) == (first.id, first.name, first.created_at, True)
    assert bench.creates(bench.a) == ["created"]


def test_a_repeated_create_waits_for_a_machine_that_is_not_listed_yet(bench: Bench) -> None:
    bench.a.launch_faults.append("hidden")
    bench.acquire()

    again = bench.acquire()

    assert again.id == "a-0"
    assert len(bench.a.machines) == 1


def test_a_machine_that_vanished_long_ago_is_made_anew_at_once(bench: Bench) -> None:
    bench.acquire()
    bench.clock.sleep(WINDOW_S)
    bench.a.machines[0].gone_at = bench.clock.time
    slept_s = bench.clock.slept_s

    assert bench.acquire().id == "a-1"
    assert bench.clock.slept_s == slept_s
    assert unresolved(bench.run_dir) == ()


@pytest.mark.parametrize("phase", ["failed", "ending"])
def test_a_machine_that_will_never_serve_is_not_adopted(bench: Bench, phase: str) -> None:
    bench.acquire()
    bench.a.machines[0].phase = phase
    bench.clock.sleep(WINDOW_S)

    assert bench.acquire().id == "a-1"
    assert [each.id for each in bench.a.alive] == ["a-1"]


def test_a_raised_attempt_never_adopts_the_machine_it_replaces(bench: Bench) -> None:
    first = bench.acquire()

    second = bench.acquire(attempt=1)

    assert second.id != first.id
    assert [each.id for each in bench.a.alive] == [second.id]


def test_a_machine_told_to_go_is_not_adopted_though_it_is_still_listed(bench: Bench) -> None:
    first = bench.acquire()
    bench.a.delete_lag_s = 500
    assert not bench.give_back(first)
    assert [each.id for each in load_unconfirmed(bench.run_dir)] == [first.id]
    bench.clock.sleep(WINDOW_S)

    assert bench.acquire().id == "a-1"


def test_a_machine_that_could_not_be_told_to_go_is_not_adopted_but_told_again(bench: Bench) -> None:
    first = bench.acquire()
    bench.clock.sleep(WINDOW_S)
    bench.a.down_until = bench.clock.time + 30
    assert not bench.give_back(first)
    bench.clock.sleep(30)

    again = bench.acquire()

    assert again.id != first.id
    assert [each.id for each in bench.a.alive] == [again.id]


def test_an_attempt_that_was_replaced_makes_nothing(bench: Bench) -> None:
    bench.acquire(attempt=3)

    with pytest.raises(CancelledError, match="attempt 2 of machine 0 was replaced by attempt 3"):
        bench.acquire(attempt=2)
    assert bench.creates(bench.a) == ["created"]


def test_a_machine_of_an_offer_that_is_left_out_is_given_back(bench: Bench) -> None:
    bench.acquire()
    bench.clock.sleep(WINDOW_S)

    machine = bench.acquire(left_out={make_offer_key(bench.offers[0])})

    assert machine.cloud == "b"
    assert bench.a.alive == []


def test_a_damaged_log_is_made_up_for_by_asking_every_cloud(bench: Bench) -> None:
    machine = bench.acquire()
    (bench.run_dir / INTENTS_FILE).write_bytes(b"damaged\n")

    again = bench.acquire()

    assert again.name != machine.name
    assert [each.id for each in bench.a.alive] == [again.id]
    assert {call.operation for call in bench.b.calls} == {"list"}


def test_nothing_is_created_under_a_revoked_lease(bench: Bench) -> None:
    bench.revoke()

    with pytest.raises(CancelledError):
        bench.acquire()
    assert bench.a.calls == []


def test_nothing_is_created_past_the_expiry(bench: Bench) -> None:
    bench.clock.time += 36_000

    with pytest.raises(ExpiredError):
        bench.acquire()
    assert bench.a.calls == []


def test_a_machine_made_while_the_lease_was_revoked_is_ended(bench: Bench) -> None:
    launch = bench.a.launch

    def launch_meanwhile(request: LaunchRequest) -> str:
        id = launch(request)
        thread = threading.Thread(target=bench.revoke)
        thread.start()
        while is_open(bench.run_dir):
            pass
        bench.clock.at(0, thread.join)
        return id

    bench.a.launch = launch_meanwhile  # type: ignore[method-assign]
    with pytest.raises(CancelledError):
        bench.acquire()
    assert len(bench.a.machines) == 1
    assert bench.a.alive == []
    assert bench.outcomes() == ["deleted"]


@pytest.mark.parametrize("fault", ["lost", "rate_limited"])
def test_a_revocation_ends_a_wait_within_two_seconds(bench: Bench, fault: str) -> None:
    bench.a.launch_faults.extend([fault] * 99)
    bench.a.post_timeout_s = 1.0
    bench.clock.at(7, bench.revoke)

    with pytest.raises(CancelledError):
        bench.acquire()
    assert bench.clock.time <= START + 7 + 2


def test_a_machine_found_after_the_revocation_is_ended(bench: Bench) -> None:
    bench.a.launch_faults.append("made")
    bench.clock.at(30, bench_revoke_without_waiting(bench))

    with pytest.raises(CancelledError):
        bench.acquire()
    assert bench.a.alive == []


def bench_revoke_without_waiting(bench: Bench) -> Callable[[], None]:
    """As a revocation that is still waiting for this create."""

    def revoke() -> None:
        with pytest.raises(LeaseholdError, match="holds this lock"):
            revoke_lease(bench.run_dir, clock=bench.clock, timeout_s=0)

    return revoke


def test_an_answer_that_cannot_be_recorded_ends_the_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from providers.lease import acquisition

    def append_until_full(run_dir: Path, intent: Any) -> None:
        if intent.kind == "answer":
            raise LeaseholdError("the disk is full")
        append_intent(run_dir, intent)

    monkeypatch.setattr(acquisition, "append_intent", append_until_full)
    with pytest.raises(LeaseholdError, match="disk is full"):
        bench.acquire()
    assert len(bench.a.machines) == 1
    assert bench.a.alive == []


def test_a_second_acquisition_of_an_index_waits_for_the_first_and_adopts(bench: Bench) -> None:
    launch, begun, go_on = bench.a.launch, threading.Event(), threading.Event()

    def launch_slowly(request: LaunchRequest) -> str:
        begun.set()
        assert go_on.wait(10)
        return launch(request)

    bench.a.launch = launch_slowly  # type: ignore[method-assign]
    made: list[AcquiredMachine] = []
    threads = [threading.Thread(target=lambda: made.append(bench.acquire())) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(timeout=20)

    assert [machine.id for machine in made] == ["a-0", "a-0"]
    assert sorted(machine.adopted for machine in made) == [False, True]
    assert len(bench.a.machines) == 1


def test_four_indexes_are_acquired_at_once(bench: Bench) -> None:
    together = threading.Barrier(4, timeout=10)
    launch = bench.a.launch
    lock = threading.Lock()

    def launch_together(request: LaunchRequest) -> str:
        together.wait()
        with lock:
            return launch(request)

    bench.a.launch = launch_together  # type: ignore[method-assign]
    made: list[AcquiredMachine] = []
    threads = [threading.Thread(target=lambda index=index: made.append(bench.acquire(index))) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)

    assert len({machine.id for machine in made}) == 4
    assert {parse_machine_name(machine.name).index for machine in made} == {0, 1, 2, 3}  # type: ignore[union-attr]
    assert load_intents(bench.run_dir).damaged == 0


SCRIPTS: dict[str, tuple[str, ...]] = {
    "clear": ("ok",),
    "no capacity": ("no_capacity",),
    "lost": ("lost",),
    "made": ("made",),
    "late": ("late",),
    "twice": ("twice",),
    "late twin": ("late_twin",),
    "rate limited": ("rate_limited", "made"),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("attempt_again", [0, 1])
def test_killed_at_any_step_and_run_again_keeps_exactly_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, attempt_again: int
) -> None:
    """Every append, call and sleep of the acquisition is a point to die at; then the same create is run once more."""
    number, died = 0, True
    while died:
        # The long middle of a settle window is the same step again and again.
        number += 1 if number < 20 else 6
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = Bench(folder)
        step_on_appends(monkeypatch, bench.steps)
        bench.a.launch_faults.extend(SCRIPTS[script])
        try:
            with bench.steps.dying_at(number):
                bench.acquire()
            died = False
        except Killed:
            pass
        machine = bench.acquire(attempt=attempt_again)

        alive = {each.id for cloud in (bench.a, bench.b) for each in cloud.alive}
        twins = {each.id for each in bench.a.machines if each.visible_at > each.created_at}
        assert machine.id in alive, number
        assert alive - {machine.id} <= twins, number
        assert find_blind_creates([bench.a, bench.b]) == [], number
        monkeypatch.undo()
    assert number > 6


def test_a_machine_that_shows_after_it_was_written_off_is_ended_while_the_run_goes_on(bench: Bench) -> None:
    bench.a.launch_faults.append("late")
    bench.a.late_s = 400.0
    machine = bench.acquire()
    bench.clock.sleep(300)

    ended = end_strays(bench.run_dir, bench.clouds, clock=bench.clock, settle_s=SETTLE_S, on_event=lambda *_: None)

    assert ended == ("a-0",)
    assert [each.id for each in bench.a.alive] == [machine.id] == ["a-1"]


@pytest.mark.parametrize("is_told_to_go", [True, False], ids=["told to go", "counted as never made"])
def test_a_machine_that_was_answered_for_and_shows_only_when_another_has_its_place_is_ended(
    bench: Bench, is_told_to_go: bool
) -> None:
    bench.a.launch_faults.append("hidden")
    bench.a.late_s, bench.a.delete_reaches_hidden = 600.0, False
    first = bench.acquire()
    assert not may_have_strays(bench.run_dir)
    if is_told_to_go:
        give_back(
            bench.run_dir,
            cloud=bench.a,
            cloud_name="a",
            id=first.id,
            name=first.name,
            price_usd_per_hour=2.5,
            clock=bench.clock,
        )
    second = bench.acquire(attempt=int(is_told_to_go))
    assert second.id != first.id
    assert may_have_strays(bench.run_dir)
    bench.clock.sleep(600)

    ended = end_strays(bench.run_dir, bench.clouds, clock=bench.clock, settle_s=SETTLE_S, on_event=lambda *_: None)

    assert ended == (first.id,)
    bench.clock.sleep(60)
    assert [each.id for each in bench.a.alive] == [second.id]


def test_the_twin_of_a_kept_machine_is_ended_when_it_shows(bench: Bench) -> None:
    bench.a.launch_faults.append("late_twin")
    bench.a.late_s = 100.0
    kept = bench.acquire()
    bench.clock.sleep(WINDOW_S)

    ended = end_strays(bench.run_dir, bench.clouds, clock=bench.clock, settle_s=SETTLE_S, on_event=lambda *_: None)

    assert ended == ("a-1",)
    assert [each.id for each in bench.a.alive] == [kept.id]


def test_a_stray_hunt_leaves_kept_machines_and_young_creates_alone(bench: Bench) -> None:
    kept = bench.acquire()
    append_intent(bench.run_dir, make_intent(f"lh-{TOKEN}-1x1-t0rx80", time=bench.clock.time))
    bench.a.add_foreign(f"lh-{TOKEN}-1x1-t0rx80")

    ended = end_strays(bench.run_dir, bench.clouds, clock=bench.clock, settle_s=SETTLE_S, on_event=lambda *_: None)

    assert ended == ()
    assert {each.id for each in bench.a.alive} == {kept.id, "a-1"}


def test_the_log_of_an_untouched_run_is_empty(bench: Bench) -> None:
    assert load_intents(bench.run_dir) == IntentLog()
