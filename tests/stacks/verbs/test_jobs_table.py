"""The table of several jobs, wide and narrow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from schemas.status import RequestCounts, Status
from stacks.run_folder import RunFolder
from stacks.verbs.job_turn import JobTurn
from stacks.verbs.jobs_table import render_turns

RUN = "nightly-tickets-261124-abc123"
COUNTS = RequestCounts(total=4000, completed=1000, failed=3000)


def make_stopped(not_run: int) -> JobTurn:
    turn = JobTurn(Path("nightly.yaml"))
    turn.take_folder(RunFolder(Path("/runs") / RUN))
    turn.status = Status(
        run=RUN, job="nightly", state="cancelled", released="verified", request_counts=COUNTS, usd_so_far=1.5,
        exit_code=130, ended_at="2026-11-24T10:00:00Z", message="stopped by the user",
    )  # fmt: skip
    turn.not_run = not_run
    return turn


def make_lines(turns: Sequence[JobTurn], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(render_turns(turns))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_name_of_a_run_is_whole_in_one_line_at_every_width(width: int) -> None:
    lines = make_lines([make_stopped(0), JobTurn(Path("later.yaml"))], width)

    assert sum(line.startswith(RUN) for line in lines) == 2, "in the table, and with what went wrong"
    assert all(len(line) <= width for line in lines)


def test_in_a_narrow_terminal_a_job_has_two_lines() -> None:
    assert make_lines([make_stopped(2995), JobTurn(Path("later.yaml"))], 70)[:5] == [
        f"{RUN}  cancelled, released: verified",
        "  1,005 of 4,000 requests, 5 failed, 1.50 of at most 0.00 USD",
        "later.yaml  waiting",
        "  0.00 of at most 0.00 USD",
        "2 jobs  1.50 of at most 0.00 USD",
    ]


def test_lines_that_never_had_their_turn_are_neither_done_nor_failed() -> None:
    row = next(line.split() for line in make_lines([make_stopped(3000)], 160) if line.startswith(RUN))

    assert row == [RUN, "cancelled", "verified", "1,000", "of", "4,000", "1.50", "0.00"]
