"""Where words and data go: words to stderr, data to stdout, colours only where a terminal shows them. Used by the tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.measure import Measurement
from rich.prompt import Confirm
from rich.table import Table

# For two echoes of Ctrl-C between two redraws.
_ECHO_COLUMNS = 4

# Without markup: clouds, paths and users write brackets that mean nothing.
WORDS = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def ask(question: str) -> bool:
    """Ask on the terminal; no is the answer of whoever just presses enter, and of an end of input (Ctrl-D)."""
    try:
        return Confirm.ask(question, console=WORDS, default=False)
    except EOFError:
        WORDS.print()
        return False


def print_data(data: Any) -> None:
    """Print a record, or a list of them, as indented JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data)).decode() + "\n")


def print_line(data: Any) -> None:
    """Print a record as one line of JSON on stdout, at once."""
    sys.stdout.write(msgspec.json.encode(data).decode() + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Print text on stdout as it is."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def print_view(view: RenderableType) -> None:
    """Print what has paragraphs among the words: nothing is cut, a long path goes over the edge."""
    WORDS.print(view, soft_wrap=False, crop=False)


def leave_room(rendered: RenderableType, console: Console) -> RenderableType:
    """For what is redrawn in place: a terminal echoes Ctrl-C as ^C behind it, and what that wraps stays as a stale line."""
    return Constrain(rendered, console.width - _ECHO_COLUMNS)


def make_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A plain table without lines, as all our lists are; the columns in `right` hold figures."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


class Fitting:
    """Shows `wide` where the terminal has room for all of it, else `narrow`: squeezed tables cannot be read."""

    def __init__(self, wide: RenderableType, narrow: RenderableType) -> None:
        self.wide = wide
        self.narrow = narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = Measurement.get(console, options.update(width=10_000), self.wide).maximum
        yield self.wide if needed <= options.max_width else self.narrow


def print_table(table: RenderableType) -> None:
    """Print a table on stdout, as wide as it needs when that is no terminal."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=240)
    console.print(table, crop=False)
