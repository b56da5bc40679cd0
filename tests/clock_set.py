"""A clock that was set since processes were started, as this process sees it: on Linux every start time moves with it."""

from __future__ import annotations

import sys

import psutil
import pytest


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    if sys.platform == "linux":
        moved = psutil.boot_time() + seconds
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: moved)
