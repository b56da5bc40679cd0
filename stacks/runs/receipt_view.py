"""A receipt as a person reads it: machine by machine, the total, and the estimate beside what came. Pure rendering with rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stacks.runs.receipt import Comparison, EstimateCheck, MachineReceipt, Receipt
from stacks.terminal.console import Fitting, make_table
from stacks.terminal.duration_words import format_duration
from stacks.terminal.paragraph import Paragraph


def render_receipt(receipt: Receipt) -> RenderableType:
    """The machines as a table, or in lines where the terminal is too narrow for it; then the whole."""
    parts: list[RenderableType] = []
    if receipt.machines:
        parts.append(Fitting(_render_table(receipt), _render_lines(receipt)))
    if receipt.boot_s or receipt.work_s or receipt.idle_s:
        parts += [Text(), Paragraph(_describe_time(receipt), label="time   ")]
    if receipt.check is not None:
        parts += [Text(), _render_check(receipt.check)]
    return Group(*parts, Text(), Paragraph(render_cost_line(receipt), label="total  "))


def render_cost_line(receipt: Receipt) -> str:
    """USD, what was expected, what was billed, and the price of a million tokens, in one line."""
    low, likely, high = receipt.estimated_usd
    parts = [f"{receipt.usd:.2f} USD (expected {low:.2f} to {high:.2f}, likely {likely:.2f})"]
    if receipt.billed_usd is not None:
        parts.append(f"billed {receipt.billed_usd:.2f} USD")
    if receipt.usd_per_million_tokens is not None:
        parts.append(f"{receipt.usd_per_million_tokens:.2f} USD per million tokens")
    return ", ".join(parts)


def _render_table(receipt: Receipt) -> Table:
    names = (
        "machine",
        "cloud",
        "GPU",
        "region",
        "id",
        "there",
        "boot",
        "work",
        "idle",
        "USD/h",
        "USD",
        "billed",
        "gone",
    )
    table = make_table(*names, right=("machine", "USD/h", "USD", "billed"))
    for line in receipt.machines:
        table.add_row(
            str(line.index),
            line.cloud,
            _name_gpu(line),
            line.region or "-",
            line.id,
            *(format_duration(each) for each in (line.seconds, line.boot_s, line.work_s, line.idle_s)),
            f"{line.usd_per_hour:.2f}",
            f"{line.usd:.4f}",
            "-" if line.billed_usd is None else f"{line.billed_usd:.4f}",
            _render_gone(line),
        )
    return table


def _render_lines(receipt: Receipt) -> Text:
    text = Text()
    for line in receipt.machines:
        place = f", {line.region}" if line.region else ""
        text.append(f"machine {line.index}", style="bold")
        text.append(f"  {line.cloud} {_name_gpu(line)}{place}\n  id {line.id}\n")
        times = ("boot", line.boot_s), ("work", line.work_s), ("idle", line.idle_s)
        text.append(f"  {', '.join(f'{name} {format_duration(seconds)}' for name, seconds in times)}\n")
        billed = "" if line.billed_usd is None else f", billed {line.billed_usd:.4f} USD"
        text.append(f"  {format_duration(line.seconds)} at {line.usd_per_hour:.2f} USD/h: {line.usd:.4f} USD{billed}\n")
        text.append("  gone: ").append_text(_render_gone(line)).append("\n")
    text.right_crop(1)
    return text


def _name_gpu(line: MachineReceipt) -> str:
    """Old receipts have only the offer's key."""
    if not line.gpu:
        return line.offer
    return line.gpu if line.count == 1 else f"{line.count} x {line.gpu}"


def _render_gone(line: MachineReceipt) -> Text:
    return Text("proven") if line.proven_gone else Text("NOT PROVEN", style="bold red")


def _describe_time(receipt: Receipt) -> str:
    whole = receipt.boot_s + receipt.work_s + receipt.idle_s
    parts = ("boot", receipt.boot_s), ("work", receipt.work_s), ("idle", receipt.idle_s)
    return ", ".join(f"{name} {format_duration(each)} ({each / whole:.0%})" for name, each in parts)


def _render_check(check: EstimateCheck) -> Fitting:
    table = make_table("", "expected (low / likely / high)", "was", "off", right=("was", "off"))
    table.pad_edge = True
    narrow = []
    for name, compared, form in _list_checks(check):
        span = compared.expected
        expected = " / ".join(form(each) for each in (span.low, span.likely, span.high))
        error = "" if compared.error is None else f"{compared.error:+.0%}"
        table.add_row(Text(f"  {name}", style="dim"), expected, form(compared.actual), error or "-")
        words = f"expected {expected}, was {form(compared.actual)}"
        narrow.append(Paragraph(f"{words}, {error}" if error else words, label=f"{name}: "))
    return Fitting(table, Group(*narrow))


def _list_checks(check: EstimateCheck) -> Iterator[tuple[str, Comparison, Callable[[float], str]]]:
    yield "USD", check.usd, "{:.2f}".format
    yield "time", check.hours, lambda hours: format_duration(hours * 3600)
    if check.prompt_tokens is not None and check.output_tokens is not None:
        yield "prompt tokens", check.prompt_tokens, "{:,.0f}".format
        yield "answer tokens", check.output_tokens, "{:,.0f}".format
