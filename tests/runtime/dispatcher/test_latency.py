from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.dispatcher.latency import Latencies


def test_nothing_added_is_zero() -> None:
    assert Latencies().percentile(0.5) == 0.0


@given(st.lists(st.floats(0.0002, 100_000), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_true_within_one_step(durations: list[float], share: float) -> None:
    latencies = Latencies()
    for duration in durations:
        latencies.add(duration)

    percentile = latencies.percentile(share)

    at_most = sum(duration <= percentile * 1.0001 for duration in durations)
    assert at_most >= share * len(durations) - 1e-9
    below = sum(duration < percentile / 1.0906 for duration in durations)
    assert below < share * len(durations) + 1e-9


def test_the_same_answer_can_be_counted_in_two_without_finding_its_step_again() -> None:
    first, second = Latencies(), Latencies()

    second.add_step(first.add(0.3))

    assert (second.count, second.percentile(0.5)) == (1, first.percentile(0.5))


@pytest.mark.parametrize("duration", [-1.0, 0.0, 1e-9, 1e12])
def test_absurd_durations_are_counted_at_the_ends(duration: float) -> None:
    latencies = Latencies()
    latencies.add(duration)

    assert latencies.count == 1
    assert latencies.percentile(0.5) > 0
