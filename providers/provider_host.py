"""The process in which Pulumi runs our dynamic resources: it serves many calls at once, and ends with the engine above it. Called
by the resources."""

from __future__ import annotations

import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

_WATCHING = threading.Event()


def widen_provider_host(calls: int = 64) -> None:
    """Let this provider process serve many calls at once: Pulumi's host has 4 threads, and a booting machine holds one.

    Does nothing where the host is built otherwise; then more than 4 machines boot no faster than 4 do.
    """
    for executor in [each for each in gc.get_objects() if isinstance(each, ThreadPoolExecutor)]:
        if getattr(executor, "_max_workers", calls) < calls:
            executor._max_workers = calls


def watch_engine() -> None:
    """End this provider process when the Pulumi engine above it is gone, so that it cannot make machines for nobody."""
    if _WATCHING.is_set():
        return
    _WATCHING.set()
    engine = _find_engine()
    if engine is not None:
        threading.Thread(target=_end_with, args=(engine,), daemon=True, name="watch-engine").start()


def _find_engine() -> psutil.Process | None:
    ancestors = psutil.Process().parents()
    return next((each for each in ancestors if each.name() == "pulumi"), ancestors[0] if ancestors else None)


def _end_with(engine: psutil.Process) -> None:
    while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
        time.sleep(1)
    os._exit(1)
