"""Tells others how a run goes, beside the run: a courier (a thread) a receiver, with retries, never in the run's way.

Called by the life cycle, and by whoever ends a run in its place. Everything is told at least once; the ids tell twins.
"""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping

from schemas.errors import LeaseholdError
from schemas.events import append_event
from schemas.notification import Notification
from schemas.status import Status, format_time
from stacks.notifications.outbox import Outbox
from stacks.notifications.targets import Receiver, open_receivers
from stacks.notifications.text import BUDGET_LEVELS, make_end_notifications, make_notification, name_event
from stacks.planning.plan import Plan, load_plan
from stacks.run_folder import RunFolder

# How long the process of a run that is over may still try, and when machines may be left that cost money.
END_PATIENCE_S = 6.0
UNVERIFIED_PATIENCE_S = 30.0
MAX_TRIES = 8
_FIRST_DELAY_S = 0.5
_LAST_DELAY_S = 30.0


class Notifier:
    """All receivers of one run. Its methods raise nothing: what goes wrong is an event of the run, and costs it nothing."""

    def __init__(self, folder: RunFolder, plan: Plan, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._plan = plan
        self._outbox = Outbox(folder.root / "notifications.jsonl")
        self._couriers: list[_Courier] = []
        self._raised: set[str] = set()
        self._patience_s = END_PATIENCE_S
        self._attempt(lambda: self._open(environ))

    def watch_budget(self, status: Status, usd: float | None = None) -> None:
        """Tell each of 50, 80 and 100 % of limits.max_usd once; usd: what counts as used, the status' own left out."""
        limit = self._plan.job.limits.max_usd
        if not limit or not self._couriers:
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
        """Let the couriers finish for at most so long; what is left then is given up, and that is an event."""
        deadline = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        for courier in self._couriers:
            courier.finish()
        for courier in self._couriers:
            courier.join(max(0.0, deadline - time.monotonic()))
        for courier in self._couriers:
            self._attempt(courier.give_up)

    def _open(self, environ: Mapping[str, str]) -> None:
        receivers, flaws = open_receivers(self._plan, environ)
        for flaw in flaws:
            append_event(self._folder.events, "notifier", "notification_impossible", flaw)
        notifications, closed = self._outbox.read()
        self._raised = set(notifications)
        self._couriers = [_Courier(self._folder, self._outbox, receiver) for receiver in receivers]
        for told in notifications.values():
            self._hand_out(told, closed)

    def _raise(self, told: Notification) -> None:
        if told.id in self._raised or not self._couriers:
            return
        self._raised.add(told.id)
        self._outbox.put(told)
        self._hand_out(told, set())

    def _hand_out(self, told: Notification, closed: set[tuple[str, str]]) -> None:
        for courier in self._couriers:
            if courier.receiver.wants(told) and (told.id, courier.receiver.name) not in closed:
                courier.take(told)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong here must not end a run that costs money: it is noted, with its details in the log."""
        try:
            step()
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            append_event(
                self._folder.events, "notifier", "notification_impossible", f"telling failed: {type(error).__name__}"
            )


class _Courier:
    """One receiver's thread, started by its first notification; a receiver that hangs holds up no other one."""

    def __init__(self, folder: RunFolder, outbox: Outbox, receiver: Receiver) -> None:
        self.receiver = receiver
        self._folder = folder
        self._outbox = outbox
        self._queue: queue.SimpleQueue[Notification | None] = queue.SimpleQueue()
        self._open: dict[str, Notification] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, told: Notification) -> None:
        with self._lock:
            self._open[told.id] = told
        self._queue.put(told)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"tell {self.receiver.name}", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """There is nothing more to come."""
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def give_up(self) -> None:
        """Stop trying, and note what could not be told."""
        self._is_over.set()
        with self._lock:
            left, self._open = list(self._open.values()), {}
        for told in left:
            self._close(told, is_delivered=False)

    def _work(self) -> None:
        while (told := self._queue.get()) is not None and not self._is_over.is_set():
            try:
                self._deliver(told)
            except Exception as error:
                # A thread's exception would be seen by nobody, and the next notification must still go out.
                traceback.print_exception(error, file=sys.stderr)
                self._note("notification_failed", f"{type(error).__name__}", told, tries=0, status=0)

    def _deliver(self, told: Notification) -> None:
        for tries, delay_s in enumerate(_list_delays(), start=1):
            delivery = self.receiver.tell(told)
            if self._is_over.is_set():
                return
            if delivery.ok:
                self._note("notification_sent", delivery.words, told, tries=tries, status=delivery.status)
                self._finish(told, is_delivered=True)
                return
            self._note("notification_failed", delivery.words, told, tries=tries, status=delivery.status)
            if delivery.is_final or tries == MAX_TRIES or self._is_over.wait(delay_s):
                break
        self._finish(told, is_delivered=False)

    def _finish(self, told: Notification, *, is_delivered: bool) -> None:
        with self._lock:
            is_mine = self._open.pop(told.id, None) is not None
        if is_mine:
            self._close(told, is_delivered=is_delivered)

    def _close(self, told: Notification, *, is_delivered: bool) -> None:
        self._outbox.close(told.id, self.receiver.name, is_delivered=is_delivered)
        if not is_delivered:
            self._note("notification_given_up", "given up", told, tries=0, status=0)

    def _note(self, event: str, words: str, told: Notification, *, tries: int, status: int) -> None:
        what = f"{name_event(told)} {'told' if event == 'notification_sent' else 'not told'} to {self.receiver.label}: {words}"
        data = {"id": told.id, "receiver": self.receiver.name, "tries": tries, "status": status}
        append_event(self._folder.events, "notifier", event, what, **data)


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


def _list_delays() -> Iterator[float]:
    """Seconds to wait after each try, growing, spread by chance."""
    for tries in range(MAX_TRIES):
        yield min(_FIRST_DELAY_S * 2.0**tries, _LAST_DELAY_S) * (0.75 + 0.5 * random.random())
