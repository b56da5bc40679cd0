"""When the next request may be sent: by the cloud's headers (RunPod) or by a pace that all processes share (Lambda).

The HTTP client asks before every try and tells every answer; the clouds' files choose which one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol

import msgspec

from providers.http.reply import Reply
from schemas.errors import LeaseholdError, RateLimited
from schemas.files import hold_lock, replace_file

_MAX_AHEAD_S = 900.0
# Beside the lanes in the file: when it was written.
_SAVED_AT = "saved at"
# Full, or read-only since it had an error.
_DISK_UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_WINDOW = re.compile(r'"?(\w+)"?((?:\s*;\s*\w+\s*=\s*-?\d+)+)')
_PARAMETER = re.compile(r";\s*(\w+)\s*=\s*(-?\d+)")


class Limiter(Protocol):
    """reserve: take the next free turn and return how many seconds away it is, or raise RateLimited when that is more
    than patience_s (then nothing is taken). note: learn from an answer. hold: nothing may be sent for so long."""

    def reserve(self, operation: str, *, patience_s: float) -> float: ...

    def note(self, reply: Reply) -> None: ...

    def hold(self, seconds: float) -> None: ...


class HeaderLimiter:
    """Waits when the last answer said that a window is used up; for one client, threads included."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._free_at = 0.0
        self._lock = threading.Lock()

    def reserve(self, operation: str, *, patience_s: float) -> float:
        with self._lock:
            wait_s = max(0.0, self._free_at - self._monotonic())
        if wait_s > patience_s:
            raise make_rate_limited(operation, wait_s)
        return wait_s

    def note(self, reply: Reply) -> None:
        self.hold(read_exhausted_s(reply.headers))

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._free_at = max(self._free_at, self._monotonic() + seconds)


class SharedPace:
    """Turns at fixed distances, kept in a small file, so that all processes of this computer together keep the pace.

    intervals: seconds between two turns, by what the turn is for; "" counts for every operation.
    """

    def __init__(self, folder: Path, key: str, intervals: Mapping[str, float], *, wall: Callable[[], float]) -> None:
        name = hashlib.sha256(f"leasehold pace {key}".encode()).hexdigest()[:20]
        self._path = folder / f"{name}.json"
        self._lock_path = folder / f"{name}.lock"
        self._intervals = intervals
        self._wall = wall
        self._unsaved: Mapping[str, float] = {}
        self._own_lock = threading.Lock()

    def reserve(self, operation: str, *, patience_s: float) -> float:
        lanes = [lane for lane in self._intervals if lane in ("", operation)]
        with self._locked():
            now = self._wall()
            free_at = self._load(now)
            turn = max([now, *(free_at.get(lane, 0.0) for lane in lanes)])
            if turn - now > patience_s:
                raise make_rate_limited(operation, turn - now)
            self._save({**free_at, **{lane: turn + self._intervals[lane] for lane in lanes}}, now)
        return turn - now

    def note(self, reply: Reply) -> None:
        """Nothing to learn: these clouds do not tell."""

    def hold(self, seconds: float) -> None:
        with self._locked():
            now = self._wall()
            free_at = self._load(now)
            held = {lane: max(free_at.get(lane, 0.0), now + seconds) for lane in self._intervals}
            self._save({**free_at, **held}, now)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone; on a disk that takes nothing any more, alone in this process, since it must not keep machines alive."""
        with self._own_lock, contextlib.ExitStack() as stack:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                stack.enter_context(hold_lock(self._lock_path, exclusive=True, timeout_s=10))
            except OSError as error:
                if error.errno not in _DISK_UNUSABLE:
                    raise self._explain(error) from error
            yield

    def _load(self, now: float) -> dict[str, float]:
        """When each lane is free. A damaged file must not stop us for long, and nor must a clock that was set back since it
        was written: what was left to wait then is the most that is left now."""
        stored: dict[str, float] = {}
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
            stored = msgspec.json.decode(self._path.read_bytes(), type=dict[str, float])
        stored |= self._unsaved
        set_back_s = max(0.0, stored.pop(_SAVED_AT, now) - now)
        return {
            lane: moment - set_back_s for lane, moment in stored.items() if moment - set_back_s <= now + _MAX_AHEAD_S
        }

    def _save(self, free_at: Mapping[str, float], now: float) -> None:
        """Where that is not possible on this disk any more, this process keeps its turns for itself."""
        self._unsaved = {**free_at, _SAVED_AT: now}
        try:
            replace_file(self._path, msgspec.json.encode(self._unsaved), mode=0o600)
        except OSError as error:
            if error.errno not in _DISK_UNUSABLE:
                raise self._explain(error) from error
        else:
            self._unsaved = {}

    def _explain(self, error: OSError) -> LeaseholdError:
        return LeaseholdError(
            f"the pace of requests cannot be kept there: {error.strerror}",
            where=str(self._path.parent),
            fix="Set LEASEHOLD_STATE_DIR to a folder that can be written.",
        )


def read_exhausted_s(headers: Mapping[str, str]) -> float:
    """Seconds until every used-up window of a `RateLimit` header is new again: `"minute";r=0;t=12, "hour";r=9;t=99`."""
    waits = [0.0]
    for window in _WINDOW.finditer(headers.get("ratelimit", "")[:1000]):
        values = {name: int(value[:9]) for name, value in _PARAMETER.findall(window[2])}
        if values.get("r", 1) <= 0:
            waits.append(float(max(0, values.get("t", 0))))
    return max(waits)


def read_retry_after_s(headers: Mapping[str, str], wall: float) -> float | None:
    """Seconds that `Retry-After` asks for, written as a number or as a date; None when it says nothing sensible."""
    text = headers.get("retry-after", "").strip()[:60]
    if re.fullmatch(r"\d{1,7}(\.\d+)?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - wall)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def make_wait_s(reply: Reply, *, tries: int, default_s: float, wall: float) -> float:
    """How long to wait after a 429: what the cloud asks for, else default_s, doubled at every further try."""
    asked: Sequence[float | None] = (read_retry_after_s(reply.headers, wall), read_exhausted_s(reply.headers) or None)
    known = [seconds for seconds in asked if seconds is not None]
    return max(known) if known else default_s * 2.0 ** (tries - 1)


def make_rate_limited(operation: str, wait_s: float) -> RateLimited:
    """The error that says when to come back."""
    error = RateLimited(
        f"the cloud takes the next request of this kind in {wait_s:.0f} s",
        operation=operation,
        status=429,
        fix="Try again then; other programs with the same key use up its requests too.",
    )
    error.retry_after_s = wait_s
    return error
