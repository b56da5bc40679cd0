"""What a run may cost: ordered, monotone, cut by limits, and told with its assumptions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stacks.estimate import Estimate, InputSummary, make_estimate

COUNTS = st.integers(0, 10**7)
SUMMARIES = st.builds(
    InputSummary, requests=COUNTS, bytes=COUNTS, max_tokens_sum=COUNTS, requests_without_max_tokens=COUNTS
)


def estimate(
    summary: InputSummary,
    *,
    replicas: int = 1,
    gpus: int = 1,
    price: float = 2.0,
    max_usd: float | None = None,
    max_hours: float | None = None,
) -> Estimate:
    return make_estimate(
        summary, replicas=replicas, gpus=gpus, usd_per_hour=price, max_usd=max_usd, max_hours=max_hours
    )


@given(
    SUMMARIES,
    st.integers(1, 64),
    st.integers(0, 8),
    st.floats(0, 100),
    st.none() | st.floats(0.01, 1000),
    st.none() | st.floats(0.01, 100),
)
def test_low_is_never_above_likely_nor_likely_above_high(
    summary: InputSummary, replicas: int, gpus: int, price: float, max_usd: float | None, max_hours: float | None
) -> None:
    made = estimate(summary, replicas=replicas, gpus=gpus, price=price, max_usd=max_usd, max_hours=max_hours)

    assert 0 <= made.low_usd <= made.likely_usd <= made.high_usd
    assert 0 < made.low_hours <= made.likely_hours <= made.high_hours


@given(SUMMARIES, COUNTS)
def test_more_tokens_never_cost_less(summary: InputSummary, more: int) -> None:
    larger = InputSummary(
        requests=summary.requests, bytes=summary.bytes + more, max_tokens_sum=summary.max_tokens_sum + more
    )
    smaller = InputSummary(requests=summary.requests, bytes=summary.bytes, max_tokens_sum=summary.max_tokens_sum)

    assert estimate(smaller).high_usd <= estimate(larger).high_usd
    assert estimate(smaller).low_hours <= estimate(larger).low_hours


@given(SUMMARIES, st.integers(1, 16))
def test_more_machines_take_no_longer(summary: InputSummary, replicas: int) -> None:
    assert estimate(summary, replicas=replicas + 1).high_hours <= estimate(summary, replicas=replicas).high_hours


def test_limits_cut_the_high_end() -> None:
    summary = InputSummary(requests=100_000, bytes=10**8, max_tokens_sum=10**8)
    free = estimate(summary)

    capped = estimate(summary, max_usd=free.likely_usd + 1)
    short = estimate(summary, max_hours=free.likely_hours)

    assert free.high_usd > capped.high_usd == round(free.likely_usd + 1, 2)
    assert short.high_hours == short.likely_hours < free.high_hours


def test_a_request_without_max_tokens_counts_with_a_guess() -> None:
    summary = InputSummary(requests=1000, bytes=0, requests_without_max_tokens=1000)

    assert "at most 300,000 output tokens" in estimate(summary).assumptions[0]


def test_this_computer_starts_sooner_than_a_rented_machine() -> None:
    summary = InputSummary(requests=1, bytes=4)

    assert estimate(summary, gpus=0).likely_hours < estimate(summary, gpus=1).likely_hours / 10


def test_the_assumptions_name_speed_boot_and_price() -> None:
    words = "\n".join(estimate(InputSummary(requests=1, bytes=4), replicas=3, price=2.5).assumptions)

    assert "8,000 / 2,500 / 700 output tokens per second and GPU" in words
    assert "2 / 5 / 15 minutes until a machine works" in words
    assert "3 machine(s) at 2.50 USD an hour each" in words
