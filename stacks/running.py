"""What `run`, `plan`, `follow`, `cancel` and `release` do, from a job file or a run's name to an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.prompt import Confirm

from schemas.errors import LeaseholdError, LimitError, ReleaseError, SpecError
from schemas.status import Status
from stacks.console import WORDS, print_data, print_text
from stacks.dead_run import end_dead_run
from stacks.display import render_plan, render_summary
from stacks.follow import follow_run, request_cancel
from stacks.plan import Plan
from stacks.receipt import load_receipt
from stacks.run_folder import RunFolder, find_run, get_home, list_runs
from stacks.run_processes import end_lifecycle, is_lifecycle_alive
from stacks.run_status import is_over, read_status
from stacks.start import launch_run, prepare_run
from stacks.token_release import find_run_of_token, find_token, release_token

_CANCEL_TIMEOUT_S = 900.0


def pick_one_job(jobs: Sequence[str]) -> Path:
    """The one job of a command line; several at once are not supported yet."""
    if len(jobs) == 1:
        return Path(jobs[0])
    raise SpecError("several jobs in one command are not supported yet", fix="Run them one after the other.")


def parse_limit(text: str) -> int:
    """The number of lines that --limit names, 0 when it was left out; raises SpecError for what is no such number."""
    if not text:
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise SpecError(f"--limit takes a number of lines from 1 on, not {text!r}", fix="Leave it out for all lines.")
    return int(text)


def run_job(
    job_file: Path,
    *,
    run: str = "",
    line_limit: int = 0,
    confirm: bool = False,
    detach: bool = False,
    foreground: bool = False,
    keep: bool = False,
    as_json: bool = False,
) -> int:
    """Plan, ask where money is spent, start, follow; the exit code is the run's."""
    if detach and foreground:
        raise SpecError("--detach and --foreground exclude each other", fix="Leave one of them out.")
    plan = prepare_run(job_file, run=run, line_limit=line_limit)
    return start_planned(
        plan, confirm=confirm, detach=detach, foreground=foreground, keep=keep, as_json=as_json, prepared=None
    )


def start_planned(
    plan: Plan, *, confirm: bool, detach: bool, foreground: bool, keep: bool, as_json: bool, prepared: Path | None
) -> int:
    """Show a plan, ask where money is spent, start, follow; `prepared` becomes the run's folder."""
    WORDS.print(render_plan(plan))
    if confirm and plan.job.costs_money:
        _ask_consent(plan)
    folder = launch_run(plan, os.environ, keep=keep, detached=not foreground, prepared=prepared)
    if detach:
        WORDS.print(f"started; watch it: ./inv follow {folder.run}", style="dim")
        print_text(folder.run)
        return 0
    WORDS.print(f"run {folder.run} has started; its files are in {folder.root}", style="dim")
    return _follow_to_end(folder, as_json=as_json, cancel_on_interrupt=True)


def show_plan(job_file: Path, *, line_limit: int, as_json: bool) -> None:
    """Print the plan; nothing is written and nothing is rented."""
    plan = prepare_run(job_file, line_limit=line_limit)
    if as_json:
        print_data(plan)
    else:
        WORDS.print(render_plan(plan))


def follow_existing(run: str) -> int:
    """Watch a run that was started elsewhere; Ctrl-C ends only the watching."""
    return _follow_to_end(find_run(run, get_home()), as_json=False, cancel_on_interrupt=False)


def cancel_run(run: str) -> int:
    """Ask the life cycle to cancel, and wait until everything is released; 0 when it is."""
    folder = _find_live_run(run)
    if is_over(read_status(folder)):
        WORDS.print(f"{folder.run} has ended already; ./inv status {folder.run} says how")
        return 0
    request_cancel(folder, "cancelled")
    status = follow_run(folder, WORDS, cancel_on_interrupt=False)
    _print_summary(folder, status)
    return ReleaseError.exit_code if status.released == "unverified" else 0


def release_existing(run: str, *, force: bool) -> int:
    """Destroy and prove, whatever state the run is in; 0 when absence is proven."""
    token = find_token(run) if force else None
    if token is not None and not any(each.run.startswith(run) for each in list_runs(get_home())):
        known = find_run_of_token(token, list_runs(get_home()))
        if known is None:
            return _release_unknown(token)
        run = known.run
    folder = _find_live_run(run, ended_too=True)
    # For a life cycle that has not got as far as saying who it is: it must find, when it looks, that it is not wanted.
    request_cancel(folder, "cancelled")
    if not end_lifecycle(folder, timeout_s=_CANCEL_TIMEOUT_S) and not force:
        raise LeaseholdError(
            "the run's life cycle still works on its release", where=folder.run, fix="Wait, or add --force."
        )
    before = read_status(folder)
    if is_over(before) and before is not None and before.released == "verified" and not force:
        print_text(f"{folder.run}: released and verified already")
        return 0
    status = end_dead_run(folder, get_home(), os.environ, force=force, on_notice=lambda text: WORDS.print(text))
    if status.released == "verified":
        print_text(f"{folder.run}: released, verified: no machine of this run is left")
        return 0
    _print_summary(folder, status)
    return ReleaseError.exit_code


def _release_unknown(token: str) -> int:
    """Release a lease whose run left nothing here."""
    proof = release_token(token, on_notice=lambda text: WORDS.print(text, style="yellow"))
    print_text(
        f"{token}: released, verified: no machine of this lease is left in {', '.join(each.cloud for each in proof.clouds)}"
    )
    return 0


def _ask_consent(plan: Plan) -> None:
    if not sys.stdin.isatty():
        raise LimitError(
            f"this run may cost {plan.estimate.low_usd:.2f} to {plan.estimate.high_usd:.2f} USD and nobody can be asked",
            where=plan.job.source,
            fix="Add --yes if that is what you want.",
        )
    if not Confirm.ask("Rent these machines?", console=WORDS, default=False):
        raise LimitError("not started: you said no", where=plan.job.source)


def _follow_to_end(folder: RunFolder, *, as_json: bool, cancel_on_interrupt: bool) -> int:
    status = follow_run(folder, WORDS, cancel_on_interrupt=cancel_on_interrupt)
    _print_summary(folder, status)
    if as_json:
        print_data(status)
    return status.exit_code if status.exit_code is not None else 1


def _print_summary(folder: RunFolder, status: Status) -> None:
    WORDS.print(render_summary(status, load_receipt(folder)))


def _find_live_run(run: str, *, ended_too: bool = False) -> RunFolder:
    """The run that is meant; without a name there must be just one that lives."""
    home = get_home()
    if run:
        return find_run(run, home)
    live = [each for each in list_runs(home) if is_lifecycle_alive(each)]
    if len(live) > 1:
        names = ", ".join(each.run for each in live)
        raise SpecError(f"{len(live)} runs are live", fix=f"Say which: {names}")
    if live or ended_too:
        return live[0] if live else find_run("", home)
    raise SpecError("no run is live", fix="./inv status shows all runs.")
