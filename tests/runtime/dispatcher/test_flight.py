from __future__ import annotations

import pytest

from runtime.dispatcher.flight import make_deadline_s


@pytest.mark.parametrize(
    ("timeout_s", "max_tokens", "latency_s", "token_s", "expected"),
    [
        (45.0, 100_000, 9.0, 1.0, 45.0),
        (0.0, 16, 1.0, 0.02, 600.0),
        (0.0, 8000, 100.0, 0.05, 1500.0),
        (0.0, 8000, 0.0, 0.0, 2400.0),
        (0.0, -1, 0.0, 0.01, pytest.approx(983.04)),
    ],
)
def test_a_deadline_is_what_the_user_says_or_what_the_speed_makes_likely(
    timeout_s: float, max_tokens: int, latency_s: float, token_s: float, expected: float
) -> None:
    assert make_deadline_s(timeout_s=timeout_s, max_tokens=max_tokens, latency_s=latency_s, token_s=token_s) == expected
