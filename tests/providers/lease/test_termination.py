"""Giving a machine back: asked until it is seen to be gone, else on the list of unconfirmed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.lease.intents import append_intent, fold_histories, load_intents
from providers.lease.lease import INTENTS_FILE
from providers.lease.termination import (
    confirm_all,
    give_back,
    load_unconfirmed,
    retry_unconfirmed,
    terminate_machine,
)
from tests.providers.scripted_cloud import PREFIX, START, FakeClock, ScriptedCloud, make_intent

NAME = f"{PREFIX}0x1-t0rx80"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> ScriptedCloud:
    cloud = ScriptedCloud("a", clock)
    cloud.add_foreign(NAME)
    return cloud


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / INTENTS_FILE).touch()
    append_intent(tmp_path, make_intent(NAME))
    append_intent(tmp_path, make_intent(NAME, kind="answer", outcome="created", id="a-0"))
    return tmp_path


def give(run_dir: Path, cloud: ScriptedCloud, deadline_s: float = 20.0) -> bool:
    return give_back(
        run_dir,
        cloud=cloud,
        cloud_name="a",
        id="a-0",
        name=NAME,
        price_usd_per_hour=2.5,
        clock=cloud.clock,
        deadline_s=deadline_s,
    )


def test_a_machine_is_gone_only_when_it_is_not_found(cloud: ScriptedCloud, clock: FakeClock) -> None:
    cloud.delete_lag_s = 60

    assert not terminate_machine(cloud, "a-0", clock=clock, deadline_s=20)
    assert terminate_machine(cloud, "a-0", clock=clock, deadline_s=60)
    assert START + 60 <= clock.time <= START + 64


def test_gone_already_is_success(cloud: ScriptedCloud, clock: FakeClock) -> None:
    assert terminate_machine(cloud, "a-9", clock=clock, deadline_s=0)


def test_an_error_that_hides_a_done_delete_is_seen_through(cloud: ScriptedCloud, clock: FakeClock) -> None:
    cloud.delete_500s = 99

    assert terminate_machine(cloud, "a-0", clock=clock, deadline_s=20)
    assert cloud.machines[0].asked == 1


@pytest.mark.parametrize(("down_s", "gone"), [(12.0, True), (120.0, False)])
def test_a_cloud_that_is_down_is_asked_until_the_deadline(
    cloud: ScriptedCloud, clock: FakeClock, down_s: float, gone: bool
) -> None:
    cloud.down_until = START + down_s

    assert terminate_machine(cloud, "a-0", clock=clock, deadline_s=20) is gone
    assert clock.time <= START + 20


def test_a_rate_limit_is_waited_out_within_the_deadline(cloud: ScriptedCloud, clock: FakeClock) -> None:
    cloud.rate_limits = 2

    assert terminate_machine(cloud, "a-0", clock=clock, deadline_s=20)
    assert clock.time == START + 10
    cloud.rate_limits = 99
    assert not terminate_machine(cloud, "a-0", clock=clock, deadline_s=20)


def test_a_delete_that_was_accepted_is_not_repeated_at_every_look(cloud: ScriptedCloud, clock: FakeClock) -> None:
    cloud.delete_lag_s = 28

    assert terminate_machine(cloud, "a-0", clock=clock, deadline_s=60)
    assert cloud.machines[0].asked == 2


def test_a_refused_key_ends_at_once(cloud: ScriptedCloud, clock: FakeClock) -> None:
    cloud.refuses_key = True

    assert not terminate_machine(cloud, "a-0", clock=clock, deadline_s=60)
    assert clock.time == START


def test_a_machine_given_back_is_recorded_as_deleted(cloud: ScriptedCloud, run_dir: Path) -> None:
    assert give(run_dir, cloud)

    history = fold_histories(load_intents(run_dir).intents)[0]
    assert (history.outcome, history.live_ids) == ("deleted", ())
    assert load_unconfirmed(run_dir) == ()


def test_a_machine_that_nobody_has_seen_yet_is_not_recorded_as_ended(cloud: ScriptedCloud, run_dir: Path) -> None:
    cloud.machines[0].visible_at = START + 30
    cloud.delete_reaches_hidden = False

    assert give(run_dir, cloud)

    history = fold_histories(load_intents(run_dir).intents)[0]
    assert (history.may_exist, history.live_ids, history.dropped_ids) == (True, ("a-0",), ("a-0",))


def test_what_is_not_seen_to_be_gone_is_on_the_list_with_its_price_until_it_is(
    cloud: ScriptedCloud, run_dir: Path
) -> None:
    cloud.delete_lag_s = 100

    assert not give(run_dir, cloud)
    (listed,) = load_unconfirmed(run_dir)
    assert (listed.cloud, listed.id, listed.name, listed.price_usd_per_hour) == ("a", "a-0", NAME, 2.5)
    assert listed.detail == "the cloud still lists it"
    assert retry_unconfirmed(run_dir, {"a": cloud}, clock=cloud.clock) == (listed,)
    cloud.clock.sleep(60)
    assert retry_unconfirmed(run_dir, {"a": cloud}, clock=cloud.clock) == ()


@pytest.mark.parametrize("torn", [b'{"version": 1, "ti', b'{"version": 1, "cloud": "\xe2\x82"}'])
def test_the_list_survives_a_cut_off_line(cloud: ScriptedCloud, run_dir: Path, torn: bytes) -> None:
    with (run_dir / "unconfirmed.jsonl").open("wb") as file:
        file.write(torn)
    cloud.delete_lag_s = 100

    give(run_dir, cloud)

    assert [machine.id for machine in load_unconfirmed(run_dir)] == ["a-0"]
    confirm_all(run_dir, cloud.clock)
    assert load_unconfirmed(run_dir) == ()


def test_without_the_run_s_folder_a_machine_is_given_back_all_the_same(cloud: ScriptedCloud, tmp_path: Path) -> None:
    assert give(tmp_path / "missing", cloud)
    assert cloud.alive == []
    assert not (tmp_path / "missing").exists()
