"""What `run`, `plan`, `follow`, `cancel` and `release` do, from a job file or a run's name to an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from schemas.errors import Interrupted, LeaseholdError, LimitError, ReleaseError, SpecError
from schemas.shown_path import show_path
from schemas.status import Status
from stacks.lifecycle.dead_run import end_dead_run
from stacks.planning.plan import Plan
from stacks.planning.plan_view import render_plan
from stacks.policy.view import tell_refusal
from stacks.releasing.stack_release import find_shared_stack, release_stack
from stacks.releasing.token_release import find_run_of_token, find_token, release_token
from stacks.run_folder import RunFolder, find_run, get_home, list_runs
from stacks.runs.receipt import load_receipt
from stacks.runs.result_places import find_places
from stacks.runs.run_processes import end_lifecycle, is_lifecycle_alive
from stacks.runs.run_status import is_over, read_status
from stacks.stack import Stack
from stacks.terminal.console import WORDS, ask, print_data, print_line, print_text, print_view
from stacks.verbs.display import render_summary
from stacks.verbs.follow import follow_events, follow_run, request_cancel
from stacks.verbs.job_flags import JobFlags
from stacks.verbs.job_writing import choose_job
from stacks.verbs.start import launch_run, prepare_run
from stacks.verbs.start_options import StartOptions

_CANCEL_TIMEOUT_S = 900.0


def pick_job(jobs: Sequence[str], flags: JobFlags) -> Path:
    """The one job of a command line: a file, or the one that is written down from flags, which is told."""
    path, is_made = choose_job(jobs, flags, Path.cwd())
    if is_made:
        shown = os.path.relpath(path)
        WORDS.print(f"this job is in {shown}; the same again: ./inv run {shown}", style="dim")
    return path


def parse_limit(text: str, *, left_out: int = 0) -> int:
    """The number of lines that --limit names, left_out when it was; raises SpecError for what is no such number.

    0 means all lines, which only says something where an earlier run had a limit.
    """
    if not text:
        return left_out
    least = 0 if left_out else 1
    if not text.isdecimal() or int(text) < least:
        raise SpecError(
            f"--limit takes a number of lines from {least} on, not {text!r}", fix="Leave it out for all lines."
        )
    return int(text)


def run_job(
    job_file: Path,
    *,
    options: StartOptions,
    run: str = "",
    line_limit: int = 0,
) -> int:
    """Plan, ask where money is spent, start, follow; the exit code is the run's."""
    if options.detach and options.foreground:
        raise SpecError("--detach and --foreground exclude each other", fix="Leave one of them out.")
    with tell_refusal(options.as_json):
        plan = prepare_run(job_file, run=run, line_limit=line_limit)
    return start_planned(plan, options)


def start_planned(plan: Plan, options: StartOptions, *, prepared: Path | None = None) -> int:
    """Show a plan, ask where money is spent, start, follow; `prepared` becomes the run's folder."""
    print_view(render_plan(plan))
    if options.confirm and plan.job.costs_money:
        _ask_consent(plan)
    folder = launch_run(plan, os.environ, keep=options.keep, detached=not options.foreground, prepared=prepared)
    if options.detach:
        WORDS.print(f"started; watch it: ./inv follow {folder.run}", style="dim")
        if options.as_json:
            print_data({"run": folder.run})
        else:
            print_text(folder.run)
        return 0
    WORDS.print(f"run {folder.run} has started; its files are in {folder.root}", style="dim")
    return _follow_to_end(folder, as_json=options.as_json, cancel_on_interrupt=True)


def show_plan(job_file: Path, *, line_limit: int, as_json: bool) -> None:
    """Print the plan; nothing is written and nothing is rented."""
    with tell_refusal(as_json):
        plan = prepare_run(job_file, line_limit=line_limit, will_write=False)
    if as_json:
        print_data(plan)
    else:
        print_view(render_plan(plan))


def follow_existing(run: str, *, as_json: bool = False) -> int:
    """Watch a run that was started elsewhere; Ctrl-C ends only the watching. as_json: its events as JSON lines."""
    folder = find_run(run, get_home())
    try:
        if not as_json:
            return _follow_to_end(folder, as_json=False, cancel_on_interrupt=False)
        status = follow_events(folder, print_line)
    except KeyboardInterrupt:
        fix = f"./inv follow {folder.run} shows it again, ./inv cancel {folder.run} ends it."
        raise Interrupted("you have stopped watching; the run goes on", where=folder.run, fix=fix) from None
    return status.exit_code if status.exit_code is not None else 1


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
    if run and not any(each.run.startswith(run) for each in list_runs(get_home())):
        shared = find_shared_stack(run, get_home(), os.environ)
        if shared is not None:
            return _release_shared(shared, force=force)
    folder = _find_live_run(run, ended_too=True)
    was_over = is_over(read_status(folder))
    # For a life cycle that has not got as far as saying who it is: it must find, when it looks, that it is not wanted.
    request_cancel(folder, "cancelled")
    if not end_lifecycle(folder, timeout_s=_CANCEL_TIMEOUT_S) and not force:
        raise LeaseholdError(
            "the run's life cycle still works on its release", where=folder.run, fix="Wait, or add --force."
        )
    before = read_status(folder)
    if is_over(before) and before is not None and before.released == "verified" and not force:
        ended = "released and verified already" if was_over else "ended, released, verified: no machine of it is left"
        print_text(f"{folder.run}: {ended}")
        return 0
    status = end_dead_run(folder, get_home(), os.environ, force=force, on_notice=lambda text: WORDS.print(text))
    if status.released == "verified":
        print_text(f"{folder.run}: released, verified: no machine of this run is left")
        return 0
    _print_summary(folder, status)
    return ReleaseError.exit_code


def _release_shared(stack: Stack, *, force: bool) -> int:
    """Release a run that was started on another computer."""
    WORDS.print(f"{stack.run} was started elsewhere; destroying its stack", style="yellow")
    release_stack(stack, force=force, on_notice=lambda text: WORDS.print(text, style="yellow"))
    print_text(f"{stack.run}: released, verified: no machine of this run is left")
    return 0


def _release_unknown(token: str) -> int:
    """Release a lease whose run left nothing here."""
    proof = release_token(token, on_notice=lambda text: WORDS.print(text, style="yellow"))
    print_text(
        f"{token}: released, verified: no machine of this lease is left in {', '.join(each.cloud for each in proof.clouds)}"
    )
    return 0


def _ask_consent(plan: Plan) -> None:
    """Ask before money is spent; where nobody can be asked, the job's own limits are the consent: what costs has both."""
    limits = plan.job.limits
    if not sys.stdin.isatty():
        words = f"nobody to ask: going on within {limits.max_usd:.2f} USD and {limits.max_hours:g} h"
        WORDS.print(words, style="yellow")
        return
    if not ask("Rent these machines?"):
        raise LimitError("not started: you said no", where=show_path(plan.job.source))


def _follow_to_end(folder: RunFolder, *, as_json: bool, cancel_on_interrupt: bool) -> int:
    status = follow_run(folder, WORDS, cancel_on_interrupt=cancel_on_interrupt)
    _print_summary(folder, status)
    if as_json:
        print_data(status)
    return status.exit_code if status.exit_code is not None else 1


def _print_summary(folder: RunFolder, status: Status) -> None:
    print_view(render_summary(_place_results(folder, status), load_receipt(folder)))


def _place_results(folder: RunFolder, status: Status) -> Status:
    """The status with the places where the job wanted the results for the files of the run."""
    places = find_places(folder)
    return msgspec.structs.replace(
        status,
        output_file=places.get(folder.output.name, status.output_file),
        error_file=places.get(folder.errors.name, status.error_file),
    )


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
