"""Names that survive our own death: what is made can be read, and nothing that others made is taken for ours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.names import (
    MAX_NAME_LENGTH,
    make_key_name,
    make_machine_name,
    make_prefix,
    parse_key_name,
    parse_machine_name,
    to_base36,
)

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=12)
NUMBERS = st.integers(0, 9999)
# From 1971 to a few thousand years on.
EXPIRIES = st.integers(36**5, 36**7)
NAME = "lh-abcdefghijkl-0x1-tlqdn4"
NOT_OURS = [
    "",
    "lh-",
    "lh-abcdefghijkl",
    "LH-abcdefghijkl-0x1-tlqdn4",
    "lh-abcdefghijk-0x1-tlqdn4",
    "lh-abcdefghijklm-0x1-tlqdn4",
    "lh-ABCDEFGHIJKL-0x1-tlqdn4",
    "lh-abcdefghijkl-x1-tlqdn4",
    "lh-abcdefghijkl-0-tlqdn4",
    "lh-abcdefghijkl-0x1-",
    "lh-abcdefghijkl-0x1-tlq",
    "lh-abcdefghijkl-0x1-tlqdn4zzz",
    "lh-abcdefghijkl-0x1-tlqdn4 ",
    "lh-abcdefghijkl-0x1-tlqdn4\n",
    "x-lh-abcdefghijkl-0x1-tlqdn4",
    "lh-abcdefghijkl-0x1-tlqdn4-2",
    "lh-abcdefghijkl--1x1-tlqdn4",
    "lh-abcdefghijkl-10000x1-tlqdn4",
    "lh-abcdefghijkl-00x1-tlqdn4",
    "lh-abcdefghijkl-0x01-tlqdn4",
    "lh-abcdefghijkl-0x1-00000",
    "lh-abcdefghijkl-٣x1-tlqdn4",
    "lh-abcdefghijkl-0x１-tlqdn4",
]


@given(TOKENS, NUMBERS, NUMBERS, EXPIRIES)
def test_what_is_made_is_read_again(token: str, index: int, attempt: int, expires_at: int) -> None:
    name = make_machine_name(token=token, index=index, attempt=attempt, expires_at=expires_at)

    read = parse_machine_name(name)

    assert read is not None
    assert (read.token, read.index, read.attempt, read.expires_at) == (token, index, attempt, expires_at)
    assert re.fullmatch(r"[a-z0-9-]+", name) and len(name) <= MAX_NAME_LENGTH
    assert name.startswith(make_prefix(token))


@given(TOKENS, EXPIRIES)
def test_a_key_name_is_read_again_and_is_no_machines(token: str, expires_at: int) -> None:
    name = make_key_name(token=token, expires_at=expires_at)

    read = parse_key_name(name)

    assert read is not None and (read.token, read.expires_at) == (token, expires_at)
    assert parse_machine_name(name) is None
    assert name.startswith(make_prefix(token))


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_name_that_is_not_exactly_ours_is_nobodys(name: str) -> None:
    assert parse_machine_name(NAME) is not None
    assert parse_machine_name(name) is None
    assert parse_key_name(name) is None


@given(st.text(max_size=60) | st.from_regex(r"lh-[a-z0-9]{12}-[0-9]{1,5}x[0-9]{1,5}-[0-9a-z]{4,9}", fullmatch=True))
def test_whatever_is_read_is_written_in_the_same_way(name: str) -> None:
    read = parse_machine_name(name)

    if read is not None:
        assert name == make_machine_name(
            token=read.token, index=read.index, attempt=read.attempt, expires_at=read.expires_at
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "short"},
        {"token": "ABCDEFGHIJKL"},
        {"token": "abcdefghijk-"},
        {"index": -1},
        {"index": 10_000},
        {"attempt": 10_000},
        {"expires_at": 1},
        {"expires_at": -5},
    ],
)
def test_what_could_not_be_read_again_is_not_made(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {"token": "abcdefghijkl", "index": 0, "attempt": 1, "expires_at": 1_790_000_000}

    with pytest.raises(ValueError):
        make_machine_name(**(right | wrong))  # type: ignore[arg-type]


@given(st.integers(0, 10**15))
def test_base_36_is_what_python_reads(number: int) -> None:
    assert int(to_base36(number), 36) == number
    assert to_base36(number) == to_base36(number).lower()
