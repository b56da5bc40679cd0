"""Questions on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from stacks.terminal.console import ask, leave_room, make_table


@pytest.mark.parametrize(
    ("typed", "answer"), [("y\n", True), ("n\n", False), ("\n", False), ("yess\ny\n", True), ("", False)]
)
def test_only_a_yes_is_a_yes_and_the_end_of_the_input_is_a_no(
    monkeypatch: pytest.MonkeyPatch, typed: str, answer: bool
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))

    assert ask("Rent these machines?") is answer


def test_what_is_redrawn_leaves_room_for_the_echo_of_ctrl_c() -> None:
    console = Console(file=io.StringIO(), width=40, force_terminal=True)
    table = make_table("run", "message")
    table.add_row("tickets-1", "so many words that a table takes all of the width")

    with console.capture() as shown:
        console.print(leave_room(table, console))

    lines = shown.get().splitlines()
    assert max(len(line) for line in lines if "tickets" in line) <= 36
