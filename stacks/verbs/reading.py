"""What `status`, `logs`, `results`, `receipt` and `ssh` do: they read a run's folder and change nothing in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from schemas.errors import SpecError
from schemas.events import read_events
from schemas.machine import MachineRecord
from schemas.ssh import SshTarget, make_ssh_arguments, write_known_hosts
from schemas.status import State, Status
from stacks.releasing.release import is_proven
from stacks.run_folder import RunFolder, find_run, get_home, list_runs
from stacks.runs.ledger import read_joined
from stacks.runs.receipt import load_receipt
from stacks.runs.receipt_view import render_receipt
from stacks.runs.result_places import ResultPlace, list_results
from stacks.runs.run_processes import is_lifecycle_alive
from stacks.runs.run_status import is_over, read_progress, read_status
from stacks.terminal.console import WORDS, print_data, print_line, print_table, print_text
from stacks.terminal.count_words import count_things
from stacks.terminal.size_words import format_size
from stacks.verbs.display import render_runs

LOG_SOURCES = ("events", "dispatch", "engine", "boot", "lifecycle", "pulumi")


def report_status(run: str, *, as_json: bool) -> None:
    """One run in full, or a table of all, the latest first."""
    home = get_home()
    folders = [find_run(run, home)] if run else list_runs(home)
    statuses = [_read_any_status(folder) for folder in folders]
    if as_json:
        print_data(statuses[0] if run else statuses)
        return
    print_table(render_runs(statuses, _count_not_run(folders, statuses)))
    if run:
        _print_details(folders[0], statuses[0])


def _count_not_run(folders: Sequence[RunFolder], statuses: Sequence[Status]) -> dict[str, int]:
    """Of the runs that did not come to their end, what their receipts say was never sent."""
    stopped = [folder for folder, status in zip(folders, statuses, strict=True) if status.request_counts.failed]
    receipts = [receipt for folder in stopped if (receipt := load_receipt(folder)) is not None]
    return {receipt.run: receipt.requests_not_run for receipt in receipts if receipt.requests_not_run}


def _read_any_status(folder: RunFolder) -> Status:
    """The run's status; one without a life cycle of its own (plain Pulumi) is told from its files."""
    status = read_status(folder)
    if status is not None:
        return status
    progress = read_progress(folder)
    if progress is None:
        return Status(run=folder.run, job=folder.run, state="queued", message="no status has been written yet")
    state: State = "completed" if progress.state == "finished" else "in_progress"
    return Status(
        run=folder.run,
        job=folder.run,
        state=state,
        released="verified" if is_proven(folder) else "no",
        request_counts=progress.request_counts,
        usage=progress.usage,
    )


def _print_details(folder: RunFolder, status: Status) -> None:
    for machine in status.machines:
        print_text(
            f"  machine {machine.index}  {machine.cloud} {machine.id}  {machine.name}  {machine.state}"
            f"  {machine.usd_per_hour:.2f} USD/h"
        )
    if status.message:
        print_text(f"  {status.message}")
    if not folder.lifecycle.exists():
        print_text("  run by hand: pulumi up and pulumi destroy are its life cycle")
    elif not is_over(status) and not is_lifecycle_alive(folder):
        print_text(f"  its life cycle is dead; free its machines: ./inv release {folder.run}")


def print_logs(run: str, source: str, *, as_json: bool = False) -> None:
    """A run's log on stdout; events as text, everything else as it was written. as_json: one object a line."""
    if source not in LOG_SOURCES:
        raise SpecError(f"there is no log called {source!r}", fix=f"One of: {', '.join(LOG_SOURCES)}.")
    folder = find_run(run, get_home())
    if source == "events":
        for event, _ in read_events(folder.events):
            if as_json:
                print_line(event)
            else:
                print_text(f"{event.time}  {event.source:<10}  {event.message}")
        return
    paths = sorted(folder.root.glob(f"{source}-*.log")) or sorted(folder.root.glob(f"{source}*.log"))
    if not paths:
        kept = [each for each in LOG_SOURCES if any(folder.root.glob(f"{each}*.log"))]
        raise SpecError(
            f"this run has no {source} log", where=folder.run, fix=f"It has: {', '.join(['events', *kept])}."
        )
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        if as_json:
            for line in text.splitlines():
                print_line({"file": path.name, "line": line})
            continue
        if len(paths) > 1:
            print_text(f"==> {path.name} <==")
        print_text(text)


class ResultFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run's results are: at the job's `output:`, a path or an s3:// address, else in the run's folder; None where
    it has none of that kind. folder: the run's, which has them too.
    """

    run: str
    output_file: str | None
    error_file: str | None
    output_lines: int = 0
    error_lines: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    folder: str = ""


def report_results(run: str, output: str, *, as_json: bool = False) -> None:
    """The places of the results on stdout, or of copies of them in a folder, and how much that is."""
    folder = find_run(run, get_home())
    found = list_results(folder)
    if not found:
        raise SpecError("this run has no results (yet)", where=folder.run, fix=f"./inv status {folder.run}")
    if output:
        found = [msgspec.structs.replace(each, place=str(_copy(each.path, Path(output)))) for each in found]
    if as_json:
        print_data(_describe_files(folder, {each.path: each for each in found}))
        return
    for each in found:
        is_answers = each.path == folder.output
        what = count_things(each.lines, "answer") if is_answers else f"{each.lines:,} without an answer"
        print_text(each.place)
        WORDS.print(f"  {what}, {format_size(each.bytes)}", style="dim")


def _describe_files(folder: RunFolder, found: Mapping[Path, ResultPlace]) -> ResultFiles:
    answers, failures = found.get(folder.output), found.get(folder.errors)
    return ResultFiles(
        run=folder.run,
        output_file=answers.place if answers else None,
        error_file=failures.place if failures else None,
        output_lines=answers.lines if answers else 0,
        error_lines=failures.lines if failures else 0,
        output_bytes=answers.bytes if answers else 0,
        error_bytes=failures.bytes if failures else 0,
        folder=str(folder.root),
    )


def _copy(path: Path, target: Path) -> Path:
    try:
        target.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(path, target))
    except OSError as error:
        fix = "Name a folder that can be written."
        raise SpecError(f"cannot copy {path.name}: {error.strerror}", where=str(target), fix=fix) from error


def report_receipt(run: str, *, as_json: bool) -> None:
    """What a run has cost, once it has ended."""
    folder = find_run(run, get_home())
    receipt = load_receipt(folder)
    if receipt is None:
        raise SpecError("this run has no receipt (yet)", where=folder.run, fix=f"./inv status {folder.run}")
    if as_json:
        print_data(receipt)
    else:
        print_table(render_receipt(receipt))


def open_shell(run: str, machine: int) -> None:
    """Become an ssh client on one machine of a live run."""
    folder = find_run(run, get_home())
    records = {record.index: record for record in read_joined(folder)}
    if machine not in records:
        there = ", ".join(map(str, sorted(records))) or "none"
        raise SpecError(f"machine {machine} has not joined, or is gone", where=folder.run, fix=f"Joined now: {there}.")
    arguments = make_ssh_arguments(_make_target(folder, records[machine]))
    os.execvp(arguments[0], [arguments[0], "-t", *arguments[1:]])


def _make_target(folder: RunFolder, record: MachineRecord) -> SshTarget:
    known_hosts = folder.host_keys / f"{record.name}.known_hosts"
    write_known_hosts(known_hosts, record.name, record.host_key)
    return SshTarget(
        host=record.host,
        port=record.port,
        user=record.user,
        key_file=str(folder.ssh_key),
        known_hosts_file=str(known_hosts),
        alias=record.name,
    )
