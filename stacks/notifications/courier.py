"""A thread that tells one receiver of a run, in order and with retries. Called by the notifier and by the late delivery."""

from __future__ import annotations

import queue
import random
import sys
import threading
import traceback

from schemas.events import append_event
from schemas.notification import Notification
from stacks.notifications.outbox import Outbox
from stacks.notifications.receivers import Receiver
from stacks.notifications.text import name_event
from stacks.run_folder import RunFolder

MAX_TRIES = 8
_FIRST_DELAY_S = 0.5
_LAST_DELAY_S = 30.0


class Courier:
    """Its thread starts with the first notification; a receiver that hangs holds up no other one.

    is_late: the run has ended, and that it could not be told was an event already; everything is tried once, and nothing
    more after there was no answer. problem: how the last try failed, "" after one that did not.
    """

    def __init__(self, folder: RunFolder, outbox: Outbox, receiver: Receiver, *, is_late: bool = False) -> None:
        self.receiver = receiver
        self.problem = ""
        self._folder = folder
        self._outbox = outbox
        self._is_late = is_late
        self._queue: queue.SimpleQueue[Notification | None] = queue.SimpleQueue()
        self._open: dict[str, Notification] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, told: Notification) -> None:
        with self._lock:
            self._open[told.id] = told
        self._queue.put(told)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"tell {self.receiver.name}", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """There is nothing more to come; who waits between two tries tries now, as there may be no time for the whole wait."""
        self._queue.put(None)
        self._hurry.set()

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def stop(self) -> None:
        """Stop trying; what could not be told stays in the outbox for whoever comes later."""
        self._is_over.set()
        self._hurry.set()
        with self._lock:
            left, self._open = list(self._open.values()), {}
        for told in left:
            if not self._is_late:
                words = f"./inv notify {self._folder.run} tells it, and later commands try"
                self._note("notification_waiting", words, told, tries=0, status=0)

    def _work(self) -> None:
        while (told := self._queue.get()) is not None and not self._is_over.is_set():
            try:
                self._deliver(told)
            except Exception as error:
                # A thread's exception would be seen by nobody, and the next notification must still go out.
                traceback.print_exception(error, file=sys.stderr)
                self._note("notification_failed", f"{type(error).__name__}", told, tries=0, status=0)

    def _deliver(self, told: Notification) -> None:
        """Try until it is told or refused. An answer that is no success ends it after MAX_TRIES, as it may be about this one
        alone; while there is no answer at all, everything waits, so that the order is kept.
        """
        tries = 0
        while True:
            tries += 1
            delivery = self.receiver.tell(told)
            self.problem = "" if delivery.ok else delivery.words
            if delivery.ok:
                self._close(told, is_delivered=True)
                self._note("notification_sent", delivery.words, told, tries=tries, status=delivery.status)
                return
            if self._is_over.is_set():
                return
            if not self._is_late:
                self._note("notification_failed", delivery.words, told, tries=tries, status=delivery.status)
            if delivery.is_final:
                self._close(told, is_delivered=False)
                self._note("notification_given_up", delivery.words, told, tries=tries, status=delivery.status)
                return
            if self._is_late and not delivery.status:
                self._is_over.set()
            if self._is_late or (tries >= MAX_TRIES and delivery.status):
                return
            self._hurry.wait(_choose_delay(tries))
            self._hurry.clear()
            if self._is_over.is_set():
                return

    def _close(self, told: Notification, *, is_delivered: bool) -> None:
        self._outbox.close(told.id, self.receiver.name, is_delivered=is_delivered)
        with self._lock:
            self._open.pop(told.id, None)

    def _note(self, event: str, words: str, told: Notification, *, tries: int, status: int) -> None:
        done = {"notification_sent": "told", "notification_waiting": "not told yet"}.get(event, "not told")
        what = f"{name_event(told)} {done} to {self.receiver.label}: {words}"
        data = {"id": told.id, "receiver": self.receiver.name, "tries": tries, "status": status}
        append_event(self._folder.events, "notifier", event, what, **data)


def _choose_delay(tries: int) -> float:
    """Seconds to wait after so many tries, growing, spread by chance."""
    return float(min(_FIRST_DELAY_S * 2.0 ** (tries - 1), _LAST_DELAY_S) * (0.75 + 0.5 * random.random()))
