"""How large a file is, in words."""

from __future__ import annotations

import pytest

from stacks.terminal.size_words import format_size


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (4096, "4.1 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_234_567_890, "1.2 GB"),
        (5_000_000_000_000_000, "5,000.0 TB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(size: int, words: str) -> None:
    assert format_size(size) == words
