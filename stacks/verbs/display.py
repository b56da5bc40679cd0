"""What a person sees of runs: the live view, the summary, the table of all. Pure rendering with rich."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from providers.open_clouds import CONSOLES
from schemas.status import MachineStatus, Progress, RequestCounts, Status
from stacks.runs.receipt import Receipt
from stacks.runs.receipt_view import render_cost_line
from stacks.terminal.console import Fitting, make_table
from stacks.terminal.count_words import count_things
from stacks.terminal.duration_words import format_duration
from stacks.terminal.paragraph import Paragraph

_STATE_STYLES = {
    "completed": "green",
    "in_progress": "cyan",
    "submitting": "cyan",
    "resource_preparing": "cyan",
    "finalizing": "cyan",
    "cancelling": "yellow",
    "cancelled": "yellow",
    "expired": "yellow",
    "failed": "red",
    "resource_failed": "red",
    "submit_failed": "red",
}
_STAGE_STYLES = {"joined": "green", "booting": "cyan", "draining": "yellow", "gone": "dim", "unconfirmed": "bold red"}


def render_live(status: Status, progress: Progress | None, frame: int) -> RenderableType:
    """The view that `run` and `follow` redraw: state, requests, speed, money, machines."""
    spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[frame % 10]
    head = Text.assemble(
        (status.run, "bold"),
        "  ",
        (status.state, _STATE_STYLES.get(status.state, "")),
        "  ",
        (f"{status.usd_so_far:.2f} USD so far", "dim"),
    )
    parts: list[RenderableType] = [Paragraph(head, label=Text(f"{spinner} ", "cyan"), margin=0, by_phrase=True)]
    if status.request_counts.total:
        # A dispatcher that starts writes its progress before it has counted the lines.
        counted = progress.request_counts if progress and progress.request_counts.total else status.request_counts
        parts.append(render_requests(counted, progress))
    if status.machines:
        parts.append(_render_machines(status.machines, progress))
    return Group(*parts)


def render_requests(counts: RequestCounts, progress: Progress | None) -> RenderableType:
    """How far it is, as a bar and in words; in a narrow terminal the words stand below the bar."""
    done = counts.completed if progress and progress.stop_reason else counts.completed + counts.failed
    bar = ProgressBar(total=max(counts.total, 1), completed=done, width=24)
    words = Text(f"{done:,} of {counts.total:,}")
    # Of a batch that was stopped, `failed` counts the lines that never had their turn as well.
    if counts.failed and not (progress and progress.stop_reason):
        words.append(f"  {counts.failed:,} failed", style="red")
    if progress and progress.state == "running":
        words.append(f"  {progress.requests_per_s:,.0f} requests/s  {progress.output_tokens_per_s:,.0f} tokens/s")
        if progress.eta_s is not None:
            words.append(f"  {format_duration(progress.eta_s)} left")
    grid = Table.grid(padding=(0, 2))
    grid.add_row("  ", bar, words)
    return Fitting(grid, Group(Padding(bar, (0, 0, 0, 4)), Paragraph(words, margin=4, by_phrase=True)))


def _render_machines(machines: Sequence[MachineStatus], progress: Progress | None) -> RenderableType:
    in_flight = {each.index: each for each in progress.replicas} if progress else {}
    grid = Table.grid(padding=(0, 2))
    narrow: list[RenderableType] = []
    for machine in list(machines)[-16:]:
        work = in_flight.get(machine.index)
        busy = f"{work.in_flight} in flight, {work.completed:,} done" if work and machine.state == "joined" else ""
        cells = (
            Text(f"machine {machine.index}"),
            Text(machine.cloud),
            Text(machine.state, style=_STAGE_STYLES[machine.state]),
            Text(f"{machine.usd_per_hour:.2f} USD/h"),
            Text(busy, style="dim"),
        )
        grid.add_row("  ", *cells)
        narrow.append(Paragraph(Text("  ").join(cells), margin=4, by_phrase=True))
    if len(machines) > 16:
        rest = f"... and {len(machines) - 16} more"
        grid.add_row("  ", rest, "", "", "", "")
        narrow.append(Paragraph(rest, margin=4))
    return Fitting(grid, Group(*narrow))


def render_summary(status: Status, receipt: Receipt | None) -> Group:
    """The last words about a run; an unproven release is the very last line, in red."""
    style = _STATE_STYLES.get(status.state, "")
    first = Text.assemble((status.state, f"bold {style}"), f"  {status.message}")
    lines: list[RenderableType] = [Paragraph(first, margin=0)]
    rest = "the rest" if receipt and receipt.requests_not_run else "failures"
    for label, path in (("answers", status.output_file), (rest, status.error_file)):
        if path:
            lines.append(Text(f"  {label:<9} {path}", no_wrap=True, overflow="ignore"))
    if receipt and receipt.requests_not_run:
        lines.append(_render_line("requests", _describe_requests(receipt)))
    if receipt:
        lines.append(_render_line("cost", render_cost_line(receipt)))
    if status.started_at and status.ended_at:
        took_s = _parse_time(status.ended_at) - _parse_time(status.started_at)
        lines.append(_render_line("took", format_duration(took_s)))
    if status.released == "verified":
        lines.append(_render_line("released", "verified: no machine of this run is left", style="green"))
        if receipt and (receipt.requests_not_run or receipt.requests_failed):
            verb = "resume" if receipt.requests_not_run else "retry"
            lines.append(Text(f"  {'next':<9} ./inv {verb} {status.run}", no_wrap=True, overflow="ignore"))
    elif status.released == "unverified":
        words = f"{_describe_left(status)}. Run now: ./inv release {status.run}{_name_consoles(status)}"
        lines += [Text(), Paragraph(Text(f"RELEASE NOT VERIFIED: {words}", "bold red"), margin=0)]
    return Group(*lines, Text())


def _render_line(label: str, words: str, *, style: str = "") -> Paragraph:
    return Paragraph(Text(words, style), label=Text(f"{label:<9} ", style))


def _describe_requests(receipt: Receipt) -> str:
    failed = f", {receipt.requests_failed:,} failed" if receipt.requests_failed else ""
    return f"{receipt.requests_completed:,} answered{failed}, {receipt.requests_not_run:,} not run"


def _parse_time(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _describe_left(status: Status) -> str:
    left = [machine for machine in status.machines if machine.state != "gone"]
    if not left:
        return "machines may be left that cost money"
    named = ", ".join(f"{each.cloud} {each.id} at {each.usd_per_hour:.2f} USD/h" for each in left[:5])
    return f"{count_things(len(left), 'machine')} may still cost money: {named}"


def _name_consoles(status: Status) -> str:
    """Where a person sees and ends by hand what may be left; with no machine known, in any cloud."""
    clouds = dict.fromkeys(machine.cloud for machine in status.machines if machine.state != "gone")
    pages = [CONSOLES[cloud] for cloud in (clouds or CONSOLES) if cloud in CONSOLES]
    return f" (or by hand: {' '.join(pages)} )" if pages else ""


def render_runs(statuses: Sequence[Status], not_run: Mapping[str, int] = {}) -> RenderableType:
    """The table of `status` over many runs; some lines a run where the terminal is too narrow for it.

    not_run: of runs that were stopped, how many of the lines without an answer never had their turn.
    """
    numbers = ("requests", "failed", "USD") if not not_run else ("requests", "failed", "not run", "USD")
    table = make_table("run", "state", "released", *numbers, "started", right=numbers)
    narrow = Text()
    for status in statuses:
        counts = status.request_counts
        state = Text(status.state, style=_STATE_STYLES.get(status.state, ""))
        released = Text(status.released, style="bold red" if status.released == "unverified" else "")
        requests, usd = f"{counts.completed:,}/{counts.total:,}", f"{status.usd_so_far:.2f}"
        started = (status.started_at or "")[:16].replace("T", " ")
        waiting = not_run.get(status.run, 0)
        failed = f"{counts.failed - waiting:,}"
        left = [f"{waiting:,}" if waiting else ""] if not_run else []
        table.add_row(status.run, state, released, requests, failed, *left, usd, started)
        narrow.append_text(
            Text.assemble((status.run, "bold"), "\n  ", state, ", released: ", released, f"  {started}\n")
        )
        stopped = f", {waiting:,} not run" if waiting else ""
        narrow.append(f"  {requests} requests, {failed} failed{stopped}, {usd} USD\n")
    narrow.right_crop(1)
    return Fitting(table, narrow)
