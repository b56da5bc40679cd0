"""The table of several jobs in one command, while they run and at the end. Pure rendering; used by many_jobs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stacks.terminal.console import Fitting, make_table
from stacks.verbs.job_turn import JobTurn

_STYLES = {"completed": "green", "in_progress": "cyan", "cancelled": "yellow", "expired": "yellow", "waiting": "dim"}


def render_turns(turns: Sequence[JobTurn]) -> RenderableType:
    """A row a job, in a narrow terminal two lines; what went wrong stands below, a release that is not proven in red."""
    table = make_table("job", "state", "released", "requests", "failed", "USD", "at most")
    for column in table.columns[3:]:
        column.justify = "right"
    narrow = Text()
    for turn in turns:
        _add_row(table, narrow, turn)
    spent, limit = sum(turn.usd for turn in turns), sum(turn.limit_usd for turn in turns)
    table.add_row(Text(f"{len(turns)} jobs", style="bold"), "", "", "", "", f"{spent:.2f}", f"{limit:.2f}")
    narrow.append(f"{len(turns)} jobs", style="bold")
    narrow.append(f"  {spent:.2f} of at most {limit:.2f} USD")
    return Group(Fitting(table, narrow), *_list_troubles(turns))


def _add_row(table: Table, narrow: Text, turn: JobTurn) -> None:
    result = turn.sum_up()
    state = "waiting" if turn.is_waiting else result.state
    counts = result.request_counts
    total = counts.total or (turn.plan.requests if turn.plan else 0)
    failures = counts.failed - turn.not_run
    done = f"{counts.completed + failures:,} of {total:,}" if total else ""
    failed = f"{failures:,}" if failures else ""
    style = _STYLES.get(state, "red" if turn.is_ended else "cyan")
    released = "" if not turn.is_ended or turn.folder is None else result.released
    name = result.run or turn.file.name
    spent, limit = f"{result.usd:.2f}", f"{turn.limit_usd:.2f}"
    table.add_row(name, Text(state, style=style), released, done, failed, spent, limit)
    counted = [f"{done} requests"] if done else []
    counted += [f"{failed} failed"] if failed else []
    words = ", ".join([*counted, f"{spent} of at most {limit} USD"])
    ended = f", released: {released}" if released else ""
    narrow.append_text(Text.assemble((name, "bold"), "  ", (state, style), f"{ended}\n  {words}\n"))


def _list_troubles(turns: Sequence[JobTurn]) -> list[Text]:
    texts = []
    for turn in turns:
        result = turn.sum_up()
        if not turn.is_ended or (result.exit_code == 0 and result.released == "verified"):
            continue
        text = str(turn.error) if turn.error else f"{result.run}: {result.message}"
        texts.append(Text(text))
        if result.run and result.released != "verified":
            words = f"RELEASE NOT VERIFIED: run now: ./inv release {result.run}"
            texts.append(Text(words, style="bold red"))
    return sorted(texts, key=lambda text: text.style == "bold red")
