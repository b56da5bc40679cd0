"""Tells what ended runs could not tell: their receiver was down, or their process was killed. Called by the commands that
touch runs, by `notify`, and by the process that goes on trying after a run.

One process at a time works on a run's outbox (its lock), in the order in which things happened.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from schemas.errors import LeaseholdError
from schemas.files import hold_lock
from stacks.notifications.courier import Courier
from stacks.notifications.outbox import Letter, Outbox
from stacks.notifications.receivers import Receiver, list_plan_targets, open_receivers
from stacks.notifications.targets import SLACK_VARIABLE, WEBHOOK_VARIABLE
from stacks.notifications.text import name_event
from stacks.planning.plan import load_plan
from stacks.run_folder import RunFolder, list_runs

# Nobody wants older news unasked; `./inv notify RUN` tells them whatever their age.
NEWS_LAST_S = 3 * 86400.0
# How long a command may be held up at its end, and how long the next ones then leave the run alone.
COMMAND_PATIENCE_S = 2.0
_PAUSE_S = 120.0


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What one receiver of a run has not been told; why: as far as it is known, without its address."""

    run: str
    receiver: str
    events: tuple[str, ...]
    why: str = ""

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.run}: {', '.join(self.events)} not told yet to {self.receiver}{why}"


def deliver(
    folder: RunFolder, environ: Mapping[str, str], *, patience_s: float, refused_too: bool = False
) -> tuple[int, list[Waiting]]:
    """Try once more what this run has to tell: how much was told, and what is left then.

    Raises LeaseholdError while another process is at it, such as the run's own, and OSError for a folder of somebody else.
    """
    outbox = Outbox(folder.notifications)
    with hold_lock(folder.notifications_lock, exclusive=True, timeout_s=0):
        _mark_of(folder).touch(mode=0o600)
        letters = list(outbox.read().values())
        receivers, _ = _open(folder, environ)
        couriers = [Courier(folder, outbox, receiver, is_late=True) for receiver in receivers]
        for courier in couriers:
            for letter in letters:
                if courier.receiver.name in (letter.waiting + letter.refused if refused_too else letter.waiting):
                    courier.take(letter.notification)
        _finish(couriers, patience_s)
    left = list_waiting(folder, environ, {each.receiver.name: each.problem for each in couriers})
    return _count_open(letters) - _count_open(outbox.read().values()), left


def list_waiting(folder: RunFolder, environ: Mapping[str, str], why: Mapping[str, str] = {}) -> list[Waiting]:
    """What a run has not told, a record each receiver; a step summary that no step shows any more is nobody's loss."""
    events: dict[str, list[str]] = {}
    for letter in Outbox(folder.notifications).read().values():
        for name in letter.waiting:
            events.setdefault(name, []).append(name_event(letter.notification))
    if not events:
        return []
    receivers, flaws = _open(folder, environ)
    labels = {each.name: each.label for each in receivers}
    left = []
    for name, told in events.items():
        flaw = flaws.get(name, f"{name} is not set here" if name in (WEBHOOK_VARIABLE, SLACK_VARIABLE) else "")
        if name in labels or flaw:
            reason = why.get(name, "") if name in labels else flaw
            left.append(
                Waiting(run=folder.run, receiver=labels.get(name, name), events=tuple(dict.fromkeys(told)), why=reason)
            )
    return left


def can_tell(folder: RunFolder, environ: Mapping[str, str]) -> bool:
    """Whether something is left for a receiver whose address is known here."""
    waiting = {name for letter in Outbox(folder.notifications).read().values() for name in letter.waiting}
    return bool(waiting) and any(each.name in waiting for each in _open(folder, environ)[0])


def find_overdue(home: Path, now: float, *, pause_s: float = 0.0) -> list[RunFolder]:
    """Runs with news that are not too old to be told unasked, the oldest run first; pause_s: not those just tried."""
    return [
        folder
        for folder in reversed(list_runs(home))
        if now - _read_mtime(_mark_of(folder)) >= pause_s and _has_news(folder, now)
    ]


class LateDelivery:
    """The delivery beside one command: a thread that tells what it can while the command works."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self._home = home
        self._environ = environ
        self._left: list[Waiting] = []
        self._thread = threading.Thread(target=self._work, name="late delivery", daemon=True)
        self._deadline = time.monotonic() + COMMAND_PATIENCE_S
        self._thread.start()

    def wait(self) -> list[Waiting]:
        """What could not be told; the command is held up for COMMAND_PATIENCE_S since its beginning at the most."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()) + 0.2)
        return list(self._left)

    def _work(self) -> None:
        # A command must not fail by what it does beside its work: the folder may be somebody else's, or just vanish.
        with contextlib.suppress(OSError, LeaseholdError):
            for folder in find_overdue(self._home, time.time(), pause_s=_PAUSE_S):
                patience_s = self._deadline - time.monotonic()
                if patience_s <= 0:
                    return
                # Another process is at it, or this run's folder cannot be used; that keeps no other run from being told.
                with contextlib.suppress(OSError, LeaseholdError):
                    self._left += deliver(folder, self._environ, patience_s=patience_s)[1]


def describe_left(left: Sequence[Waiting]) -> str:
    """One sentence about what is left, with what to do."""
    runs = list(dict.fromkeys(each.run for each in left))
    where = f"./inv notify {runs[0]}" if len(runs) == 1 else "./inv notify"
    more = f", and {len(left) - 1} more" if len(left) > 1 else ""
    return f"{left[0]}{more}; {where} tries again"


def _open(folder: RunFolder, environ: Mapping[str, str]) -> tuple[list[Receiver], dict[str, str]]:
    receivers, flaws = open_receivers(list_plan_targets(load_plan(folder.plan), environ), environ)
    return receivers, {name: flaw.what for name, flaw in flaws.items()}


def _finish(couriers: Sequence[Courier], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    for courier in couriers:
        courier.finish()
    for courier in couriers:
        courier.join(max(0.0, deadline - time.monotonic()))
    for courier in couriers:
        courier.stop()


def _count_open(letters: Iterable[Letter]) -> int:
    return sum(len(letter.waiting) + len(letter.refused) for letter in letters)


def _has_news(folder: RunFolder, now: float) -> bool:
    """By the file's time first: of most runs nothing need be read."""
    if now - _read_mtime(folder.notifications) > NEWS_LAST_S:
        return False
    letters = Outbox(folder.notifications).read().values()
    return any(letter.waiting and now - _parse_time(letter.notification.time) < NEWS_LAST_S for letter in letters)


def _read_mtime(path: Path) -> float:
    """When a file was last written, in seconds since 1970; 0 for one that is not there."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _parse_time(text: str) -> float:
    with contextlib.suppress(ValueError):
        return datetime.datetime.fromisoformat(text).timestamp()
    return 0.0


def _mark_of(folder: RunFolder) -> Path:
    """Its time says when an ended run's news were last tried."""
    return folder.root / "notifications.tried"
