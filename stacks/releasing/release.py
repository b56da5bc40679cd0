"""Gives everything of a run back and proves it: destroy, else sweep, then the proof. Called by the life cycle and `release`.

revoke the lease -> end what a killed run left -> destroy the stack -> else sweep by token -> proof
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from providers.clock import SystemClock
from providers.lease.lease import INTENTS_FILE, LEASE_FILE, load_lease, revoke_lease
from providers.lease.sweep import release_lease
from providers.open_clouds import CONSOLES, choose_waits, open_clouds
from schemas.errors import LeaseholdError, ReleaseError
from schemas.events import append_event
from stacks.planning.plan import RELEASE_DEADLINE_S, load_plan
from stacks.releasing.destroy import destroy_stack
from stacks.run_folder import RunFolder
from stacks.runs.batch_stop import stop_dispatcher
from stacks.runs.run_processes import end_leftovers
from stacks.runs.run_status import read_progress
from stacks.stack import Stack
from stacks.stack_call import StackCall

_REVOKE_TIMEOUT_S = 150.0
Notice = Callable[[str], None]


class ReleaseOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """verified: absence was proven (or nothing was ever made). message: what to tell when it was not."""

    verified: bool
    message: str = ""


def release_run(
    folder: RunFolder,
    home: Path,
    environment: Mapping[str, str],
    *,
    force: bool = False,
    keep_stack: bool = False,
    on_call: Callable[[StackCall], None] = lambda _: None,
    on_notice: Notice = lambda _: None,
) -> ReleaseOutcome:
    """Destroy and prove; raises nothing: what went wrong is in the outcome.

    force: sweep by the lease alone, without Pulumi's lock and state, then forget the stack.
    """
    try:
        _revoke(folder)
        left = end_leftovers(folder)
        if left:
            on_notice(f"ended {left} process(es) that a killed run had left")
        if not force:
            _destroy(folder, home, environment, keep_stack, on_call, on_notice)
        if not is_proven(folder):
            _sweep(folder)
            _forget(folder, home, environment, on_notice)
        _stop_stray_dispatcher(folder)
    except (LeaseholdError, OSError) as error:
        return _fail(folder, error)
    except Exception as error:
        # Such as code that cannot be loaded any more: whoever released still has to say that nothing is proven.
        with contextlib.suppress(OSError):  # the log may be on a disk that is full
            traceback.print_exception(error, file=sys.stderr)
        fix = f"Try again: ./inv release {folder.run}"
        return _fail(
            folder, ReleaseError(f"the release broke off: {type(error).__name__}: {error}", where=folder.run, fix=fix)
        )
    return ReleaseOutcome(verified=True)


def _fail(folder: RunFolder, error: Exception) -> ReleaseOutcome:
    append_event(folder.events, "release", "release_failed", str(error))
    return ReleaseOutcome(verified=False, message=str(error))


def _stop_stray_dispatcher(folder: RunFolder) -> None:
    """A dispatcher that the stack does not know, since its start was cut off, would wait for machines until the deadline."""
    progress = read_progress(folder)
    if progress is None or progress.state in ("waiting", "running", "draining"):
        stop_dispatcher(folder, None)


def _revoke(folder: RunFolder) -> None:
    """End the right to make machines; a record that cannot be read or locked is left to the sweep, which can do without."""
    if not (folder.root / LEASE_FILE).exists():
        return
    try:
        revoke_lease(folder.root, clock=SystemClock(), timeout_s=_REVOKE_TIMEOUT_S)
    except (LeaseholdError, OSError) as error:
        append_event(folder.events, "release", "revocation_unclear", str(error))
        return
    append_event(folder.events, "release", "lease_revoked", "the lease is revoked: no machine can be made any more")


def _destroy(
    folder: RunFolder,
    home: Path,
    environment: Mapping[str, str],
    keep_stack: bool,
    on_call: Callable[[StackCall], None],
    on_notice: Notice,
) -> None:
    """Bring the stack down; what destroy cannot do is left to the sweep, and said."""
    try:
        stack = Stack(folder.run, folder.root, home, environment)
        notice = stack.clear_stale_lock()
        if notice:
            on_notice(notice)
        if not stack.exists():
            return
        reasons = destroy_stack(
            stack,
            remove=not keep_stack,
            clear_lock=lambda complaint: on_notice(stack.clear_stale_lock(complaint) or ""),
            on_call=on_call,
        )
        if reasons is not None:
            append_event(folder.events, "release", "destroy_failed", reasons)
            on_notice("pulumi destroy did not finish; sweeping the clouds directly")
    except Exception as error:
        # Whatever it is (a full disk, a process that does not end): machines cost money until somebody ends them.
        append_event(folder.events, "release", "destroy_failed", str(error))
        what = error.what if isinstance(error, LeaseholdError) else error
        on_notice(f"pulumi destroy could not run; sweeping the clouds directly ({what})")


def is_proven(folder: RunFolder) -> bool:
    """Whether the lease carries its proof, or no lease and so no machine was ever made."""
    if not (folder.root / LEASE_FILE).exists():
        return not (folder.root / INTENTS_FILE).exists()
    try:
        return load_lease(folder.root).state == "released"
    except LeaseholdError:
        return False


def _sweep(folder: RunFolder) -> None:
    plan = load_plan(folder.plan)
    release_lease(
        folder.root,
        run=folder.run,
        token=None,
        clouds=open_clouds(plan.clouds),
        clock=SystemClock(),
        settle_s=plan.settle_s,
        deadline_s=RELEASE_DEADLINE_S,
        on_event=lambda event, message, data: _note(folder, event, message, data),
        waits=choose_waits(plan.clouds),
        consoles=CONSOLES,
    )


def _forget(folder: RunFolder, home: Path, environment: Mapping[str, str], on_notice: Notice) -> None:
    """Repair Pulumi's state after a sweep: its resources are proven gone, so the stack may be forgotten."""
    try:
        stack = Stack(folder.run, folder.root, home, environment)
        notice = stack.clear_stale_lock()
        if notice:
            on_notice(notice)
        if stack.exists():
            stack.forget()
    except (LeaseholdError, OSError) as error:
        what = error.what if isinstance(error, LeaseholdError) else error
        on_notice(f"the machines are gone, but Pulumi's state still names them: {what}")


def _note(folder: RunFolder, event: str, message: str, data: Mapping[str, Any]) -> None:
    append_event(folder.events, "release", event, message, **data)
