from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from stacks.terminal.paragraph import Paragraph

PATH = "/home/someone/projects/quarterly/runs/tickets-20260921-141320/output.jsonl"


def show(paragraph: Paragraph, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, markup=False)
    console.print(paragraph, crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_a_path_stays_on_one_line_whatever_the_width(width: int) -> None:
    lines = show(Paragraph(f"the results are in {PATH} and nowhere else", label="results  "), width)

    [line] = [line for line in lines if PATH in line]
    assert all(len(other) <= width for other in lines if other is not line)
    assert " ".join(" ".join(lines).split()) == f"results the results are in {PATH} and nowhere else"


def test_it_goes_on_under_itself() -> None:
    assert show(Paragraph("one two three four five six seven", label="label  "), 32) == [
        "  label  one two three four five",
        "         six seven",
    ]
    assert show(Paragraph("one two three", label="a long label  "), 20) == ["  a long label  one", "  two three"]


def test_a_command_is_not_broken() -> None:
    lines = show(Paragraph("12 machines may be left. Run now: ./inv release tickets-1 (or by hand)", margin=0), 40)

    assert lines == ["12 machines may be left. Run now:", "./inv release tickets-1 (or by hand)"]


def test_by_phrase_what_two_spaces_part_stays_together() -> None:
    lines = show(Paragraph("40 of 120  12 failed  312 requests/s", margin=4, by_phrase=True), 30)

    assert lines == ["    40 of 120  12 failed", "    312 requests/s"]


def test_styles_stay_where_they_were() -> None:
    text = Text.assemble("one ", ("two", "red"), " three")

    lines = Paragraph(text, margin=0)._break(8, 8)

    assert [line.plain for line in lines] == ["one two", "three"]
    assert [(span.start, span.end, span.style) for span in lines[0].spans] == [(4, 7, "red")]


def test_lines_of_its_own_stay_lines() -> None:
    assert show(Paragraph("one\n\ntwo three", label="label  "), 60) == [
        "  label  one",
        "         ",
        "         two three",
    ]


def test_nothing_is_an_empty_line() -> None:
    assert show(Paragraph("", margin=0), 30) == [""]
