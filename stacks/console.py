"""Where words and data go: words to stderr, data to stdout, colours only where a terminal shows them. Used by the tasks."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table

# Without markup: clouds, paths and users write brackets that mean nothing.
WORDS = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def print_data(data: Any) -> None:
    """Print a record, or a list of them, as indented JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data)).decode() + "\n")


def print_text(text: str) -> None:
    """Print text on stdout as it is."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def make_table(*columns: str) -> Table:
    """A plain table without lines, as all our lists are."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column)
    return table


def print_table(table: RenderableType) -> None:
    """Print a table on stdout, as wide as it needs when that is no terminal."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=240)
    console.print(table)
