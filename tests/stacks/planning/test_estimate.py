"""What a run may cost: ordered, monotone, cut by limits, right to the cent, and told with its assumptions."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacks.planning.basis import choose_basis
from stacks.planning.estimate import Assumption, Basis, Estimate, InputSummary, describe_span, make_estimate
from stacks.planning.span import Span, make_even
from tests.stacks.run_files import make_h100, make_job, make_offer, make_template

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
    max_hours: float = math.inf,
) -> Estimate:
    offer = make_h100("US-1", price, count=gpus) if gpus else make_offer()
    base = make_template()
    source = msgspec.structs.replace(base.spec.model_source, type="huggingface", uri="Qwen/Qwen2.5-7B-Instruct")
    template = msgspec.structs.replace(base, spec=msgspec.structs.replace(base.spec, model_source=source))
    basis = choose_basis(make_job(), template, offer, summary)
    return make_estimate(basis, replicas=replicas, usd_per_hour=price, max_usd=max_usd, max_hours=max_hours)


def make_basis(work: Span, speed: Span, boot_minutes: Span, release_minutes: float = 1.0) -> Basis:
    prompt, output, tokens_per_s, boot = (
        Assumption(span=span, source="guess", words="so") for span in (make_even(0), work, speed, boot_minutes)
    )
    return Basis(
        prompt_tokens=prompt,
        output_tokens=output,
        tokens_per_s=tokens_per_s,
        boot_minutes=boot,
        work_tokens=work,
        release_minutes=release_minutes,
    )


@given(
    SUMMARIES,
    st.integers(1, 64),
    st.integers(0, 8),
    st.floats(0, 100),
    st.none() | st.floats(0.01, 1000),
    st.just(math.inf) | st.floats(0.01, 100),
)
def test_low_is_never_above_likely_nor_likely_above_high(
    summary: InputSummary, replicas: int, gpus: int, price: float, max_usd: float | None, max_hours: float | None
) -> None:
    made = estimate(summary, replicas=replicas, gpus=gpus, price=price, max_usd=max_usd, max_hours=max_hours)

    assert 0 <= made.low_usd <= made.likely_usd <= made.high_usd
    assert 0 < made.low_hours <= made.likely_hours <= made.high_hours


@given(SUMMARIES, st.integers(1, 64), st.floats(0, 40), st.none() | st.floats(0.01, 1000))
def test_hours_times_price_is_usd_to_the_cent(
    summary: InputSummary, replicas: int, price: float, max_usd: float | None
) -> None:
    made = estimate(summary, replicas=replicas, price=price, max_usd=max_usd)

    for hours, usd in ((made.low_hours, made.low_usd), (made.high_hours, made.high_usd)):
        assert round(hours * replicas * price, 2) == pytest.approx(usd, abs=1e-9)


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


def test_little_work_on_a_fast_machine_is_low_and_much_on_a_slow_one_high() -> None:
    basis = make_basis(
        Span(low=360_000, likely=720_000, high=1_440_000),
        Span(low=100, likely=200, high=400),
        Span(low=3, likely=6, high=12),
        release_minutes=3,
    )

    made = make_estimate(basis, replicas=2, usd_per_hour=1.5, max_usd=None, max_hours=math.inf)

    assert (made.low_hours, made.likely_hours, made.high_hours) == (0.225, 0.65, 2.25)
    assert (made.low_usd, made.likely_usd, made.high_usd) == (0.68, 1.95, 6.75)
    assert made.warnings == ()


def test_limits_cut_the_high_end() -> None:
    summary = InputSummary(requests=100_000, bytes=10**8, max_tokens_sum=10**8)
    free = estimate(summary)

    capped = estimate(summary, max_usd=round(free.likely_usd + 1, 2))
    short = estimate(summary, max_hours=free.likely_hours)

    assert free.high_usd > capped.high_usd == round(free.likely_usd + 1, 2)
    assert short.high_hours == short.likely_hours < free.high_hours


def test_limits_that_will_not_do_for_all_lines_are_told() -> None:
    summary = InputSummary(requests=100_000, bytes=10**8, max_tokens_sum=10**8)
    free = estimate(summary)

    short = estimate(summary, max_hours=free.likely_hours / 2)
    poor = estimate(summary, max_usd=(free.low_usd + free.likely_usd) / 2)

    assert free.warnings == ()
    assert "limits.max_hours" in short.warnings[0] and "batch_expired" in short.warnings[0]
    assert "limits.max_usd" in poor.warnings[0] and "budget_exceeded" in poor.warnings[0]


def test_a_request_without_max_tokens_counts_with_a_guess() -> None:
    summary = InputSummary(requests=1000, bytes=0, requests_without_max_tokens=1000)

    assert "answers: 100,000 / 300,000 / 1,000,000 tokens" in estimate(summary).assumptions[1]


def test_this_computer_starts_sooner_than_a_rented_machine() -> None:
    summary = InputSummary(requests=1, bytes=4)

    assert estimate(summary, gpus=0).likely_hours < estimate(summary, gpus=1).likely_hours / 10


def test_the_assumptions_name_tokens_speed_boot_release_and_price() -> None:
    made = estimate(InputSummary(requests=1, bytes=400, max_tokens_sum=100), replicas=3, price=2.5)

    labels = [words.partition(":")[0] for words in made.assumptions]
    assert labels == ["prompts", "answers", "speed", "boot", "release", "price"]
    assert "400 bytes of requests at 4 bytes a token; 6 to 2.5 are possible" in made.assumptions[0]
    assert "3 machines at 2.50 USD/h each" in made.assumptions[5]


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (Span(low=1, likely=2.25, high=1234567), "1 / 2.2 / 1,230,000"),
        (make_even(0), "0"),
        (make_even(44), "44"),
    ],
)
def test_a_span_is_told_with_no_more_digits_than_it_has(span: Span, words: str) -> None:
    assert describe_span(span) == words
