"""The retry rule: what follows each outcome."""

from __future__ import annotations

from typing import get_args

import pytest

from providers.http.retry import RULES, Kind, Outcome, classify_status, decide, make_delay_s

MAY_SEND_A_CREATE_AGAIN = {"not_sent", "rate_limited"}


def test_the_table_answers_for_every_outcome_and_kind() -> None:
    assert set(RULES) == set(get_args(Outcome))
    assert all(set(row) == set(get_args(Kind)) for row in RULES.values())


def test_a_create_is_sent_again_only_when_nothing_can_have_been_made() -> None:
    again = {outcome for outcome in RULES if decide(outcome, "create") in ("retry", "wait")}

    assert again == MAY_SEND_A_CREATE_AGAIN


def test_only_a_create_can_be_unclear() -> None:
    unclear = {
        (outcome, kind) for outcome, row in RULES.items() for kind, verdict in row.items() if verdict == "unclear"
    }

    assert unclear == {("lost", "create"), ("garbled", "create"), ("server_error", "create")}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "answered"),
        (204, "answered"),
        (301, "refused"),
        (400, "refused"),
        (401, "refused"),
        (408, "lost"),
        (410, "refused"),
        (429, "rate_limited"),
        (500, "server_error"),
        (524, "server_error"),
        (599, "server_error"),
        (100, "lost"),
    ],
)
def test_a_status_stands_for_an_outcome(status: int, outcome: Outcome) -> None:
    assert classify_status(status) == outcome


def test_delays_grow_and_stay_bounded() -> None:
    delays = [make_delay_s(tries, 0.5) for tries in range(1, 12)]

    assert delays == sorted(delays)
    assert 0.3 < delays[0] < 1 and delays[-1] <= 10
