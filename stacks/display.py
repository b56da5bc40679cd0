"""What a person sees: the live view of a run, its summary, plan, status table and receipt. Pure rendering with rich."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.status import MachineStatus, Progress, Status
from stacks.plan import Plan
from stacks.receipt import Receipt

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
        (f"{spinner} ", "cyan"),
        (status.run, "bold"),
        "  ",
        (status.state, _STATE_STYLES.get(status.state, "")),
        "  ",
        (f"{status.usd_so_far:.2f} USD so far", "dim"),
    )
    parts: list[RenderableType] = [head]
    counts = status.request_counts
    if counts.total:
        parts.append(_render_requests(status, progress))
    if status.machines:
        parts.append(_render_machines(status.machines, progress))
    return Group(*parts)


def _render_requests(status: Status, progress: Progress | None) -> RenderableType:
    counts = progress.request_counts if progress else status.request_counts
    done = counts.completed + counts.failed
    grid = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(counts.total, 1), completed=done, width=24)
    words = Text(f"{done:,} of {counts.total:,}")
    if counts.failed:
        words.append(f"  {counts.failed:,} failed", style="red")
    if progress and progress.state == "running":
        words.append(f"  {progress.requests_per_s:,.0f} requests/s  {progress.output_tokens_per_s:,.0f} tokens/s")
        if progress.eta_s is not None:
            words.append(f"  {format_duration(progress.eta_s)} left")
    grid.add_row("  ", bar, words)
    return grid


def _render_machines(machines: Sequence[MachineStatus], progress: Progress | None) -> RenderableType:
    in_flight = {each.index: each for each in progress.replicas} if progress else {}
    grid = Table.grid(padding=(0, 2))
    for machine in list(machines)[-16:]:
        work = in_flight.get(machine.index)
        busy = f"{work.in_flight} in flight, {work.completed:,} done" if work and machine.state == "joined" else ""
        grid.add_row(
            "  ",
            f"machine {machine.index}",
            machine.cloud,
            Text(machine.state, style=_STAGE_STYLES[machine.state]),
            f"{machine.usd_per_hour:.2f} USD/h",
            Text(busy, style="dim"),
        )
    if len(machines) > 16:
        grid.add_row("  ", f"... and {len(machines) - 16} more", "", "", "", "")
    return grid


def render_summary(status: Status, receipt: Receipt | None) -> Text:
    """The last words about a run; an unproven release is the very last line, in red."""
    style = _STATE_STYLES.get(status.state, "")
    text = Text.assemble((status.state, f"bold {style}"), f"  {status.message}\n")
    for label, path in (("answers", status.output_file), ("failures", status.error_file)):
        if path:
            text.append(f"  {label:<9} {path}\n")
    if receipt:
        text.append(f"  cost      {render_cost_line(receipt)}\n")
    if status.started_at and status.ended_at:
        text.append(f"  took      {format_duration(_parse_time(status.ended_at) - _parse_time(status.started_at))}\n")
    if status.released == "verified":
        text.append("  released  verified: no machine of this run is left\n", style="green")
    elif status.released == "unverified":
        command = f"./inv release {status.run}"
        text.append(f"\nRELEASE NOT VERIFIED: {_describe_left(status)}. Run now: {command}\n", style="bold red")
    return text


def _parse_time(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _describe_left(status: Status) -> str:
    left = [machine for machine in status.machines if machine.state != "gone"]
    if not left:
        return "machines may be left that cost money"
    named = ", ".join(f"{each.cloud} {each.id} at {each.usd_per_hour:.2f} USD/h" for each in left[:5])
    return f"{len(left)} machine(s) may still cost money: {named}"


def render_cost_line(receipt: Receipt) -> str:
    """USD, what was expected, and the price of a million tokens, in one line."""
    low, likely, high = receipt.estimated_usd
    parts = [f"{receipt.usd:.2f} USD (expected {low:.2f} to {high:.2f}, likely {likely:.2f})"]
    if receipt.billed_usd is not None:
        parts.append(f"billed {receipt.billed_usd:.2f}")
    if receipt.usd_per_million_tokens is not None:
        parts.append(f"{receipt.usd_per_million_tokens:.2f} per million tokens")
    return ", ".join(parts)


def render_plan(plan: Plan) -> RenderableType:
    """What `plan` shows: requests, ranked offers, cost with its assumptions, limits."""
    job, estimate = plan.job, plan.estimate
    head = Text.assemble(
        (job.name, "bold"),
        f"  {plan.input.requests:,} requests to {job.endpoint}, model {plan.template.model}, template {job.template}\n",
        _describe_taken_over(plan),
        f"  {job.machines.replicas} machine(s), at least {job.machines.min_replicas} to go on\n",
    )
    offers = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("try", "cloud", "GPU", "tier", "region", "USD/h", "stock"):
        offers.add_column(column, justify="right" if column == "USD/h" else "left")
    for rank, choice in enumerate(plan.choices[:12], start=1):
        offer = choice.offer
        gpu = offer.gpu if offer.count == 1 else f"{offer.count} x {offer.gpu}"
        stock = offer.stock or ("" if offer.available else "sold out")
        offers.add_row(
            str(rank), offer.cloud, gpu, offer.tier, offer.region, f"{offer.price_usd_per_hour:.2f}", stock.lower()
        )
    cost = Text.assemble(
        ("\n  cost   ", "dim"),
        f"{estimate.low_usd:.2f} / {estimate.likely_usd:.2f} / {estimate.high_usd:.2f} USD (low / likely / high), ",
        f"{format_duration(estimate.low_hours * 3600)} to {format_duration(estimate.high_hours * 3600)}\n",
        *(f"           {line}\n" for line in estimate.assumptions),
        ("  limits ", "dim"),
        _describe_limits(plan),
    )
    return Group(head, offers, cost)


def _describe_taken_over(plan: Plan) -> str:
    taken = plan.taken_over
    if taken is None:
        return ""
    failed = f" and {taken.failures:,} final failures" if taken.failures else ""
    return f"  left of {plan.requests:,}: {taken.answers:,} answers{failed} are taken over from {plan.resumes}\n"


def _describe_limits(plan: Plan) -> str:
    limits = plan.job.limits
    money = f"{limits.max_usd:.2f} USD" if limits.max_usd is not None else "no limit in USD"
    return f"{money}, {format_duration(plan.lifetime_s)}, {limits.boot_minutes:.0f} minutes to boot"


def render_runs(statuses: Sequence[Status]) -> Table:
    """The table of `status` over many runs."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("run", "state", "released", "requests", "failed", "USD", "started"):
        table.add_column(column, justify="right" if column in ("requests", "failed", "USD") else "left", no_wrap=True)
    for status in statuses:
        counts = status.request_counts
        released = Text(status.released, style="bold red" if status.released == "unverified" else "")
        table.add_row(
            status.run,
            Text(status.state, style=_STATE_STYLES.get(status.state, "")),
            released,
            f"{counts.completed:,}/{counts.total:,}",
            f"{counts.failed:,}",
            f"{status.usd_so_far:.2f}",
            (status.started_at or "")[:16].replace("T", " "),
        )
    return table


def render_receipt(receipt: Receipt) -> RenderableType:
    """The receipt as a table, one line a machine."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("machine", "cloud", "id", "offer", "boot", "work", "idle", "USD/h", "USD", "billed", "gone"):
        table.add_column(column, justify="right" if column in ("USD/h", "USD", "billed") else "left")
    for line in receipt.machines:
        table.add_row(
            str(line.index),
            line.cloud,
            line.id,
            line.offer,
            format_duration(line.boot_s),
            format_duration(line.work_s),
            format_duration(line.idle_s),
            f"{line.usd_per_hour:.2f}",
            f"{line.usd:.4f}",
            "" if line.billed_usd is None else f"{line.billed_usd:.4f}",
            "proven" if line.proven_gone else Text("NOT PROVEN", style="bold red"),
        )
    return Group(table, Text(f"\n  total  {render_cost_line(receipt)}"))


def format_duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min, 1 h 05."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    span = datetime.timedelta(seconds=round(seconds))
    hours, rest = divmod(int(span.total_seconds()), 3600)
    return f"{hours} h {rest // 60:02d}"
