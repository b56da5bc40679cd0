"""Tells others how a run goes, beside the run: a courier (a thread) a receiver, with retries, never in the run's way.

Called by the life cycle, and by whoever ends a run in its place. Everything is told at least once; the ids tell twins.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping

from schemas.errors import LeaseholdError
from schemas.events import append_event
from schemas.files import hold_lock
from schemas.notification import Notification
from schemas.notify import NotifyTarget
from schemas.status import Status, format_time
from stacks.notifications.courier import Courier
from stacks.notifications.outbox import Letter, Outbox
from stacks.notifications.receivers import is_wanted, list_plan_targets, open_receivers
from stacks.notifications.text import BUDGET_LEVELS, make_end_notifications, make_notification
from stacks.planning.plan import Plan, load_plan
from stacks.run_folder import RunFolder

# How long the process of a run that is over may still try, and when machines may be left that cost money.
END_PATIENCE_S = 6.0
UNVERIFIED_PATIENCE_S = 30.0
# As long as a later command may be at it; who ends a run does not wait longer, and tells twice rather than not at all.
_TURN_TIMEOUT_S = 3.0


class Notifier:
    """All receivers of one run. Its methods raise nothing: what goes wrong is an event of the run, and costs it nothing.

    While there is one, no other process tells anything of this run.
    """

    def __init__(self, folder: RunFolder, plan: Plan, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._plan = plan
        self._outbox = Outbox(folder.notifications)
        self._turn = contextlib.ExitStack()
        self._targets: list[tuple[str, NotifyTarget]] = []
        self._couriers: list[Courier] = []
        self._raised: set[str] = set()
        self._patience_s = END_PATIENCE_S
        self._attempt(lambda: self._open(environ))

    def watch_budget(self, status: Status, usd: float | None = None) -> None:
        """Tell each of 50, 80 and 100 % of limits.max_usd once; usd: what counts as used, the status' own left out."""
        limit = self._plan.job.limits.max_usd
        if not limit or not self._targets:
            return
        percent = (status.usd_so_far if usd is None else usd) / limit * 100
        for level in BUDGET_LEVELS:
            if level <= percent:
                told = make_notification(self._plan, status, "budget", format_time(time.time()), level)
                self._attempt(lambda told=told: self._raise(told))  # type: ignore[misc]

    def tell_end(self, status: Status) -> None:
        """Tell how the run ended and whether its release is proven."""
        self._patience_s = UNVERIFIED_PATIENCE_S if status.released == "unverified" else END_PATIENCE_S
        for told in make_end_notifications(self._plan, status, format_time(time.time())):
            self._attempt(lambda told=told: self._raise(told))  # type: ignore[misc]

    def close(self, patience_s: float | None = None) -> None:
        """Let the couriers finish for at most so long; what is left then waits in the outbox, and that is an event."""
        deadline = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        for courier in self._couriers:
            courier.finish()
        for courier in self._couriers:
            courier.join(max(0.0, deadline - time.monotonic()))
        for courier in self._couriers:
            self._attempt(courier.stop)
        self._attempt(self._turn.close)

    def _open(self, environ: Mapping[str, str]) -> None:
        self._targets = list_plan_targets(self._plan, environ)
        if not self._targets:
            return
        with contextlib.suppress(LeaseholdError):
            self._turn.enter_context(
                hold_lock(self._folder.notifications_lock, exclusive=True, timeout_s=_TURN_TIMEOUT_S)
            )
        receivers, flaws = open_receivers(self._targets, environ)
        for name, flaw in flaws.items():
            append_event(
                self._folder.events, "notifier", "notification_impossible", f"{name} cannot be told: {flaw.what}"
            )
        letters = self._outbox.read()
        self._raised = set(letters)
        self._couriers = [Courier(self._folder, self._outbox, receiver) for receiver in receivers]
        for letter in letters.values():
            self._hand_out(letter)

    def _raise(self, told: Notification) -> None:
        to = tuple(name for name, target in self._targets if is_wanted(told, target))
        if told.id in self._raised or not to:
            return
        self._raised.add(told.id)
        self._outbox.put(told, to)
        self._hand_out(Letter(notification=told, waiting=to))

    def _hand_out(self, letter: Letter) -> None:
        for courier in self._couriers:
            if courier.receiver.name in letter.waiting:
                courier.take(letter.notification)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong here must not end a run that costs money: it is noted, with its details in the log."""
        try:
            step()
        except Exception as error:
            with contextlib.suppress(OSError):  # the log may be on a disk that is full
                traceback.print_exception(error, file=sys.stderr)
            append_event(
                self._folder.events, "notifier", "notification_impossible", f"telling failed: {type(error).__name__}"
            )


def tell_end_in_place(folder: RunFolder, environ: Mapping[str, str], status: Status) -> None:
    """For a run whose life cycle is dead: tell what it has not told any more, and how the run ended."""
    try:
        plan = load_plan(folder.plan)
    except LeaseholdError as error:
        append_event(folder.events, "notifier", "notification_impossible", f"nobody was told: {error.what}")
        return
    notifier = Notifier(folder, plan, environ)
    notifier.tell_end(status)
    notifier.close()
