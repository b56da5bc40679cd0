"""Numbers of things as words: `1 machine`, `2,000 requests`. Used by everything that tells a person how many."""

from __future__ import annotations


def count_things(number: int, noun: str) -> str:
    """The number with its noun, in the plural unless there is one; only for nouns that take an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
