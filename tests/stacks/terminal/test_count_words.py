"""How many of something, as a person says it."""

from __future__ import annotations

import pytest

from stacks.terminal.count_words import count_things


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 machines"), (1, "1 machine"), (2, "2 machines"), (1000, "1,000 machines")]
)
def test_a_noun_is_in_the_plural_unless_there_is_one(number: int, words: str) -> None:
    assert count_things(number, "machine") == words
