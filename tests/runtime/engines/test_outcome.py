from __future__ import annotations

import pytest

from runtime.batch.tokens import Tokens
from runtime.engines.outcome import MAX_RETRY_AFTER_S, Outcome, classify_answer, describe_alike, read_retry_after

CASES: list[tuple[int, bytes, Outcome]] = [
    (200, b'{"a":1}', Outcome.ANSWERED),
    (201, b"[]", Outcome.ANSWERED),
    (200, b"", Outcome.RETRY),
    (200, b'{"a":', Outcome.RETRY),
    (200, b"<html>", Outcome.RETRY),
    (301, b"", Outcome.REFUSED),
    (400, b"{}", Outcome.REFUSED),
    (401, b"{}", Outcome.REFUSED),
    (404, b"", Outcome.REFUSED),
    (408, b"", Outcome.RETRY),
    (413, b"", Outcome.REFUSED),
    (422, b"{}", Outcome.REFUSED),
    (429, b"{}", Outcome.BUSY),
    (500, b"{}", Outcome.RETRY),
    (502, b"<html>", Outcome.RETRY),
    (503, b"{}", Outcome.BUSY),
    (504, b"", Outcome.RETRY),
]


@pytest.mark.parametrize(("status", "body", "expected"), CASES)
def test_an_answer_is_final_retried_or_free(status: int, body: bytes, expected: Outcome) -> None:
    assert classify_answer(status, body)[0] is expected


def test_tokens_come_with_a_good_answer_only() -> None:
    body = b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}'

    assert classify_answer(200, body)[1] == Tokens(1, 0, 2, 0)
    assert classify_answer(400, body)[1] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 0.0),
        ("", 0.0),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-4", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("99999999", MAX_RETRY_AFTER_S),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_reason(value: str | None, expected: float) -> None:
    assert read_retry_after(value, now=10.0) == expected


def test_refusals_that_differ_in_numbers_only_are_alike() -> None:
    assert describe_alike(400, b"context 4096 < 5012") == describe_alike(400, b"context 4096 < 7777")
    assert describe_alike(400, b"context") != describe_alike(404, b"context")
    assert describe_alike(400, b"a") != describe_alike(400, b"b")
