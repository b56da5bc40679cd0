"""Ends a run whose own life cycle cannot any more: stop the batch, release, keep results and receipt, say the last word.

Called by `release` and by the orphan release.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from schemas.errors import LeaseholdError
from schemas.events import append_event
from schemas.files import hold_lock
from schemas.status import Status
from stacks.notifications.lone_courier import start_courier
from stacks.notifications.notifier import tell_end_in_place
from stacks.planning.plan import load_plan
from stacks.releasing.destroy import DESTROY_TIMEOUT_S
from stacks.releasing.release import Notice, release_run
from stacks.releasing.release_speed import note_release_speed
from stacks.run_folder import RunFolder
from stacks.runs.batch_stop import finish_results, stop_dispatcher
from stacks.runs.collecting import collect_records, collect_results
from stacks.runs.receipt import make_receipt, save_receipt
from stacks.runs.run_processes import load_processes, save_processes
from stacks.runs.run_status import end_for_dead_lifecycle, is_over, read_status
from stacks.stack_call import StackCall

_LOCK_FILE = "release.lock"


def end_dead_run(
    folder: RunFolder,
    home: Path,
    environment: Mapping[str, str],
    *,
    force: bool = False,
    on_notice: Notice = lambda _: None,
) -> Status:
    """Everything that the life cycle would still have done; the status says whether absence is proven.

    One at a time, so that who comes second finds a proof and no lock of Pulumi's; force waits for nobody.
    """
    try:
        with _hold_turn(folder, force):
            before = read_status(folder)
            if before is not None and is_over(before) and before.released == "verified" and not force:
                return before
            status = _end(folder, home, environment, force, on_notice)
    except LeaseholdError as error:
        status = end_for_dead_lifecycle(folder, verified=False, message=str(error))
    tell_end_in_place(folder, environment, status)
    start_courier(folder, environment)
    return status


@contextlib.contextmanager
def _hold_turn(folder: RunFolder, force: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            timeout_s = 0.5 if force else DESTROY_TIMEOUT_S
            stack.enter_context(hold_lock(folder.root / _LOCK_FILE, exclusive=True, timeout_s=timeout_s))
        except LeaseholdError:
            if not force:
                raise
        except OSError:
            # A full disk has no room for a lock, and machines cost money.
            append_event(
                folder.events, "release", "release_unlocked", "the turn to release cannot be kept on this disk"
            )
        yield


def _end(folder: RunFolder, home: Path, environment: Mapping[str, str], force: bool, on_notice: Notice) -> Status:
    stop_dispatcher(folder, "batch_cancelled")
    outcome = release_run(
        folder,
        home,
        environment,
        force=force,
        on_call=lambda call: _record_call(folder, call),
        on_notice=on_notice,
    )
    _keep_results(folder)
    status = end_for_dead_lifecycle(folder, verified=outcome.verified, message=outcome.message)
    _keep_records(folder)
    return status


def _record_call(folder: RunFolder, call: StackCall) -> None:
    """Name this pulumi too, so that a later release can end it when this one is killed."""
    processes = load_processes(folder)
    if processes is not None:
        with contextlib.suppress(OSError):  # that process notes its own id as well, and nothing here may leave it alone
            save_processes(folder, msgspec.structs.replace(processes, pulumi=call.mark))


def _keep_results(folder: RunFolder) -> None:
    """Results and receipt come after the release: what goes wrong with them is noted and costs nothing more."""
    try:
        note_release_speed(folder)
        plan = load_plan(folder.plan)
        finish_results(folder, "batch_cancelled")
        collect_results(folder, plan.job)
        save_receipt(folder, make_receipt(folder, plan, time.time()))
    except (LeaseholdError, OSError) as error:
        append_event(folder.events, "release", "after_run_failed", str(error))


def _keep_records(folder: RunFolder) -> None:
    try:
        collect_records(folder, load_plan(folder.plan).job)
    except (LeaseholdError, OSError) as error:
        append_event(folder.events, "release", "after_run_failed", str(error))
