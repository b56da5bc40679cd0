"""The line that shows a long step is alive, on a terminal and elsewhere."""

from __future__ import annotations

import io
import time

import pytest

from toolchain.progress import Progress

LONG = "building something whose name is much longer than a terminal is wide, and then some more words"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80])
def test_a_line_that_is_written_over_is_never_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()

    write_until(stream, Progress(stream, interval_s=0.01), " 0 s")

    lines = stream.getvalue().split("\r\033[K")[:-1]
    assert len(lines) > 1
    assert [line for line in lines if len(line) >= columns] == []
    assert all(line.startswith("inv: building something") for line in lines)
    assert lines[-1].endswith(" ... 0 s")


def test_elsewhere_a_line_is_whole() -> None:
    stream = io.StringIO()

    write_until(stream, Progress(stream, interval_s=0.01), " 0 s")

    lines = stream.getvalue().splitlines()
    assert lines[:2] == [f"inv: {LONG} ...", f"inv: {LONG} ... 0 s"]
    assert lines[-1] == f"inv: {LONG}: done in 0 s"


def write_until(stream: io.StringIO, progress: Progress, words: str) -> None:
    deadline = time.monotonic() + 5
    with progress.step(LONG):
        while words not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
