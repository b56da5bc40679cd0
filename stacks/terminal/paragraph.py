"""Text that wraps between words and never within one: what a path or a command is can be copied whole. Used by the views."""

from __future__ import annotations

import re

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_COMMAND = r"\./inv [\w-]+ [\w./:-]+|\./inv [\w-]+"
_WORD = re.compile(rf"{_COMMAND}|\S+")
_PHRASE = re.compile(r"\S+(?: \S+)*")
_LEAST_ROOM = 20


class Paragraph:
    """A label and text that goes on under itself. A word that is wider than its line begins a line and is left to the terminal.

    by_phrase: what two spaces part stays together, for what is redrawn in place; there nothing may be wider than its line.
    Print it with crop=False.
    """

    def __init__(self, text: str | Text, *, label: str | Text = "", margin: int = 2, by_phrase: bool = False) -> None:
        self.text = Text(text) if isinstance(text, str) else text
        self.label = Text(label) if isinstance(label, str) else label
        self.margin = margin
        self.by_phrase = by_phrase

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = Text.assemble(" " * self.margin, self.label)
        indent = head.cell_len
        if options.max_width - indent < _LEAST_ROOM:  # what has hardly any room goes on further left
            indent = self.margin
        room = options.max_width - head.cell_len
        for line in self._break(room, options.max_width - indent):
            head.append_text(line)
            head.no_wrap, head.overflow = not self.by_phrase, "fold" if self.by_phrase else "ignore"
            yield head
            head = Text(" " * indent)

    def _break(self, first_room: int, room: int) -> list[Text]:
        """The text in lines; the first one has less room when its label is long."""
        lines: list[Text] = []
        for whole in self.text.split("\n", allow_blank=True):
            begin = end = 0
            for start, stop in (each.span() for each in (_PHRASE if self.by_phrase else _WORD).finditer(whole.plain)):
                if end > 0 and whole[begin:stop].cell_len > (room if lines else first_room):
                    lines.append(whole[begin:end])
                    begin = start
                begin, end = start if end == 0 else begin, stop
            lines.append(whole[begin:end])
        return lines
