"""When a local machine must end itself: at its expiry, or when nobody sends it a heartbeat. Called by its keeper."""

from __future__ import annotations

from pathlib import Path


class DeadMan:
    """Decides once a tick, from clocks that are handed in.

    Expiry counts by the wall clock and by the monotonic one, whichever is first, so that a clock set back does not
    prolong a machine's life. Heartbeats count by the monotonic clock alone, so that a clock set forward ends nothing.
    """

    def __init__(self, *, expires_at: float, heartbeat_timeout_s: float, now: float, monotonic: float) -> None:
        self._expires_at = expires_at
        self._expires_monotonic = monotonic + (expires_at - now)
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._beat_monotonic = monotonic
        self._beat_mtime_ns: int | None = None

    def find_reason(self, *, now: float, monotonic: float, beat_mtime_ns: int | None) -> str:
        """Why the machine must end now, or ""; beat_mtime_ns is None when there is no heartbeat file."""
        if beat_mtime_ns is not None and beat_mtime_ns != self._beat_mtime_ns:
            self._beat_mtime_ns = beat_mtime_ns
            self._beat_monotonic = monotonic
        if now >= self._expires_at or monotonic >= self._expires_monotonic:
            return "its lease has expired"
        silent_s = monotonic - self._beat_monotonic
        if self._heartbeat_timeout_s and silent_s > self._heartbeat_timeout_s:
            return f"no heartbeat for {silent_s:.0f} s"
        return ""


def read_beat(home: Path) -> int | None:
    """When the heartbeat file was last written, in ns; None when it never was."""
    try:
        return (home / ".leasehold" / "heartbeat").stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None
