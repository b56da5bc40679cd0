from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.durations import STEPS, find_end_s, find_step


@given(st.floats(0.0001, 400_000))
def test_a_duration_lies_in_its_step_which_is_about_three_percent_wide(duration_s: float) -> None:
    step = find_step(duration_s)

    low_s, high_s = find_end_s(step - 1), find_end_s(step)
    assert low_s * (1 - 1e-9) <= duration_s <= high_s * (1 + 1e-9)
    assert high_s / low_s <= 1 + 1 / 32 + 1e-9


def test_steps_follow_one_another_without_a_gap() -> None:
    ends = [find_end_s(step) for step in range(-1, STEPS)]

    assert ends[0] == pytest.approx(0.0001)
    assert ends == sorted(set(ends))
    assert [find_step(low * 1.0001) for low in ends[:-1]] == list(range(STEPS))


@pytest.mark.parametrize(("duration_s", "step"), [(-1.0, 0), (0.0, 0), (1e-9, 0), (1e12, STEPS - 1)])
def test_absurd_durations_are_counted_at_the_ends(duration_s: float, step: int) -> None:
    assert find_step(duration_s) == step
