"""Reading what a cloud answered without trusting it."""

from __future__ import annotations

from typing import Any

import pytest

from providers.http.reply import (
    GarbledAnswer,
    clean,
    get,
    make_reply,
    parse_json,
    read_count,
    read_number,
    read_text,
    require_id,
    require_list,
)


@pytest.mark.parametrize(
    "body", [b"", b"<html>502</html>", b"{", b"\xff\xfe\x00", b"NaN", b'{"a": Infinity}', b"[" * 200_000, b"1" * 5000]
)
def test_a_body_that_is_no_json_is_kept_as_text(body: bytes) -> None:
    reply = make_reply(200, {}, body)

    assert reply.data is None
    assert isinstance(reply.text, str)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        ("0.74", 0.74),
        (" 3 ", 3.0),
        (True, None),
        ("x", None),
        (None, None),
        ([], None),
        ("nan", None),
        (10**400, None),
    ],
)
def test_numbers_are_read_from_numbers_and_from_text(value: Any, number: float | None) -> None:
    assert read_number(value) == number


def test_texts_with_half_a_surrogate_can_still_be_written() -> None:
    text = read_text(parse_json('"a\\ud800b"'))

    assert text.encode("utf-8") == b"a?b"


def test_counts_are_never_negative_or_absurd() -> None:
    assert [read_count(value) for value in (-3, "8", 1e300, None, 2.9)] == [0, 8, 0, 0, 2]


def test_a_path_that_ends_early_gives_none() -> None:
    assert get({"a": {"b": 1}}, "a", "b") == 1
    assert get({"a": []}, "a", "b") is None


def test_a_missing_list_is_never_an_empty_one() -> None:
    for data in (None, {}, {"pods": None}, {"pods": {}}, []):
        with pytest.raises(GarbledAnswer):
            require_list(data, "pods")


@pytest.mark.parametrize("value", ["", "..", ".", "a/b", "a b", None, {}, "x" * 200, "\u00e9"])
def test_an_id_that_could_not_stand_in_a_path_is_refused(value: Any) -> None:
    with pytest.raises(GarbledAnswer):
        require_id(value)


def test_words_for_people_hold_no_secret_no_key_and_no_control_characters() -> None:
    pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\nBBBB\n-----END OPENSSH PRIVATE KEY-----"
    words = clean(f"bad\x1b[31m value rpa_SECRET in {pem} and {'Ab1' * 40}\nend", secrets=("rpa_SECRET", ""))

    assert words == "bad [31m value *** in *** and *** end"


def test_a_private_key_that_was_cut_off_is_hidden_too() -> None:
    assert clean("x -----BEGIN OPENSSH PRIVATE KEY-----\nabc\\ndef") == "x ***"


def test_long_words_are_cut() -> None:
    assert len(clean("word " * 500)) == 400
