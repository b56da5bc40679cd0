"""What `notify` does, and what other commands do beside their work: tell what ended runs could not tell in their time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from schemas.errors import CredentialError, LeaseholdError, SpecError
from stacks.notifications.late_delivery import LateDelivery, Waiting, deliver, describe_left, find_overdue, list_waiting
from stacks.run_folder import RunFolder, find_run, get_home
from stacks.runs.run_processes import is_lifecycle_alive
from stacks.runs.run_status import is_over, read_status
from stacks.terminal.console import WORDS, print_text
from stacks.terminal.count_words import count_things
from stacks.verbs.reading import report_status

_RUN_PATIENCE_S = 10.0
_ALL_PATIENCE_S = 30.0


@contextlib.contextmanager
def delivering_late() -> Iterator[LateDelivery]:
    """While a command works, tell what earlier runs could not; what is left then is said in one sentence."""
    late = LateDelivery(get_home(), os.environ)
    try:
        yield late
    finally:
        left = late.wait()
        if left:
            WORDS.print(describe_left(left), style="yellow")


def show_status(run: str, *, as_json: bool) -> None:
    """The status, and of one run also who has not been told."""
    if not run:
        with delivering_late():
            report_status(run, as_json=as_json)
        return
    LateDelivery(get_home(), os.environ).wait()
    report_status(run, as_json=as_json)
    folder = find_run(run, get_home())
    if is_over(read_status(folder)) and not is_lifecycle_alive(folder):
        with contextlib.suppress(LeaseholdError, OSError):  # the plan cannot be read, which is told by others
            left = list_waiting(folder, os.environ)
            if left:
                WORDS.print(describe_left(left), style="yellow")


def tell_again(run: str) -> int:
    """Tell what RUN has not told, whatever its age and also what was refused; without a name, what all runs have not.

    0 when everything is told; 3 when that lacks a secret, else 1, also while another process is at it.
    """
    folders = [find_run(run, get_home())] if run else find_overdue(get_home(), time.time())
    deadline = time.monotonic() + _ALL_PATIENCE_S
    told, is_whole = 0, True
    left: list[Waiting] = []
    for folder in folders:
        patience_s = max(1.0, min(_RUN_PATIENCE_S, deadline - time.monotonic()))
        try:
            count, waiting = deliver(folder, os.environ, patience_s=patience_s, refused_too=bool(run))
        except (LeaseholdError, OSError) as error:
            if run:
                raise _explain(folder, error) from error
            is_whole = False
            WORDS.print(str(_explain(folder, error)), style="yellow")
            continue
        told += count
        left += waiting
    if is_whole or told or left:
        _print_told(told, left, run)
    return _choose_code(left) or (0 if is_whole else LeaseholdError.exit_code)


def _is_taken(folder: RunFolder, error: LeaseholdError | OSError) -> bool:
    """Whether another process is at this run's notifications, such as the run's own."""
    return isinstance(error, LeaseholdError) and error.where == str(folder.notifications_lock)


def _explain(folder: RunFolder, error: LeaseholdError | OSError) -> LeaseholdError:
    """Why this run's notifications cannot be told just now."""
    if isinstance(error, OSError):
        words = f"its notifications cannot be told ({error.strerror})"
        return LeaseholdError(words, where=folder.run, fix=f"See whose folder it is: {folder.root}")
    if not _is_taken(folder, error):
        return error
    if is_lifecycle_alive(folder):
        fix = f"./inv follow {folder.run} watches it."
        return SpecError("this run is still at work, and tells by itself", where=folder.run, fix=fix)
    return LeaseholdError("another process is telling just now", where=folder.run, fix="Try again in a few seconds.")


def _print_told(told: int, left: list[Waiting], run: str) -> None:
    for each in left:
        WORDS.print(str(each), style="yellow")
    if told:
        print_text(f"told: {count_things(told, 'notification')}")
    elif not left:
        print_text(
            f"{find_run(run, get_home()).run}: nothing is left to tell" if run else "no run has news left to tell"
        )
    if left:
        WORDS.print("Mend what stands in brackets, then run this again; docs/notifications.md says what is tried.")


def _choose_code(left: list[Waiting]) -> int:
    if not left:
        return 0
    return CredentialError.exit_code if all("is not set" in each.why for each in left) else LeaseholdError.exit_code
