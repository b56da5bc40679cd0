"""The cloud's clock, and knobs that are turned for some uses or some subjects."""

from __future__ import annotations

import pytest

from providers.emulators.clock import CloudClock, from_rfc3339, to_rfc3339
from providers.emulators.faults import Faults, UnknownKnob
from providers.emulators.knobs import LAMBDA_KNOBS, RUNPOD_KNOBS


def test_due_actions_run_in_the_order_of_their_moments_when_the_clock_is_pushed() -> None:
    clock, done = CloudClock(speed=1), list[str]()
    now = clock.now()
    clock.call_at(now + 50, lambda: done.append("second"))
    clock.call_at(now + 20, lambda: done.append("first"))
    clock.call_at(now + 500, lambda: done.append("never"))

    clock.advance(60)

    assert done == ["first", "second"]
    assert clock.now() - now >= 60


def test_a_fast_clock_tells_spans_in_the_clients_seconds() -> None:
    assert CloudClock(speed=60).to_real_s(120) == 2


def test_a_time_survives_its_text_form() -> None:
    assert from_rfc3339(to_rfc3339(1_795_000_000.25)) == 1_795_000_000.25


def test_a_counted_turn_is_used_up_and_a_matched_one_waits_for_its_subject() -> None:
    faults = Faults(RUNPOD_KNOBS)
    faults.set("ssh_never", count=2, match="x1-")

    assert faults.take("ssh_never", "lh-a-0x0-b") is False
    assert [faults.take("ssh_never", "lh-a-0x1-b") for _ in range(3)] == [True, True, False]


def test_looking_at_a_knob_does_not_use_it_up() -> None:
    faults = Faults(RUNPOD_KNOBS)
    faults.set("capacity_race", count=1)

    assert faults.peek("capacity_race") and faults.peek("capacity_race") and faults.take("capacity_race")
    assert not faults.take("capacity_race")


def test_a_knob_that_is_on_by_default_can_be_turned_off_and_back() -> None:
    faults = Faults(RUNPOD_KNOBS)

    faults.set("count_quirk", False)
    assert faults.take("count_quirk") is False
    faults.set("count_quirk", None)
    assert faults.take("count_quirk") is True


@pytest.mark.parametrize(("name", "value"), [("no_such", True), ("ssh_never", 3), ("ssh_after_s", "soon"), ("mode", 1)])
def test_a_mistyped_knob_is_refused_at_once(name: str, value: object) -> None:
    with pytest.raises(UnknownKnob):
        Faults(RUNPOD_KNOBS).set(name, value)


def test_a_range_is_drawn_from_and_a_number_is_taken_as_it_is() -> None:
    faults = Faults(LAMBDA_KNOBS, seed=3)

    assert 113 <= faults.draw_s("active_after_s") <= 242
    faults.set("active_after_s", 7)
    assert faults.draw_s("active_after_s") == 7
