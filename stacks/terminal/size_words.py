"""Numbers of bytes as words: `512 B`, `4.1 kB`, `1.2 GB`. Used by everything that tells a person how large a file is."""

from __future__ import annotations


def format_size(size: int) -> str:
    """With one decimal from a thousand bytes on, in steps of a thousand."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{size} B" if units[0] == "B" else f"{amount:,.1f} {units[0]}"
