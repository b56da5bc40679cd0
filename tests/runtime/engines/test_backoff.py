from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.backoff import Backoff, next_delay


@given(st.floats(0, 100), st.integers())
def test_a_delay_is_between_the_base_and_the_cap(previous_s: float, seed: int) -> None:
    delay_s = next_delay(previous_s, base_s=0.5, cap_s=30.0, draw=random.Random(seed))

    assert 0.5 <= delay_s <= min(30.0, max(0.5, previous_s * 3)) + 1e-9


def test_delays_grow_and_start_again() -> None:
    backoff = Backoff(base_s=0.1, cap_s=5.0, draw=random.Random(1))

    first = backoff.next()
    later = max(backoff.next() for _ in range(40))
    backoff.reset()

    assert first == 0.1
    assert later > 1.0
    assert backoff.next() == 0.1
