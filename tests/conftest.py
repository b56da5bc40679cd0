"""What no unit test may do: reach another computer, use the keys of whoever runs it, or touch their runs.

Tests that are marked wire, engine, chaos or live bring their own environment; a live one alone keeps the keys.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers as draws

# The suite draws the same examples each time, so that a change is judged by itself; `explore` draws new ones:
# ./inv test --unit -- --hypothesis-profile=explore. How long one example takes depends on what else this computer does.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

# Hypothesis also draws the constants of whichever of our modules are loaded, and those differ from worker to worker and
# change when a test loads one: then examples are not repeatable, and such a test fails as flaky.
assert callable(draws._get_local_constants)
draws._get_local_constants = lambda: draws._local_constants

_SLOW_MARKS = ("chaos", "engine", "wire")
_UNIT = len(_SLOW_MARKS)
_MARKS_WITH_EFFECTS = ("wire", "engine", "chaos", "live")
_CREDENTIALS = ("RUNPOD_", "LAMBDA_CLOUD_", "AWS_", "HF_TOKEN", "LEASEHOLD_SSH_KEY_FILE", "AIBRIX_")
_LOOPBACK = ("127.", "::1", "localhost")
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files come first. Tests with real processes get a second and a third try: on a loaded computer one may miss a
    deadline.

    Each such try shows as R and by name at the end; a test that fails every time fails. Unit tests have one try.
    """
    ranks: dict[Path, int] = {}
    for item in items:
        ranks[item.path] = min(_rank(item), ranks.get(item.path, _UNIT))
    items.sort(key=lambda item: ranks[item.path])
    for item in items:
        if any(item.get_closest_marker(mark) for mark in _SLOW_MARKS):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))


def _rank(item: pytest.Item) -> int:
    """By what a test of its kind takes, the longest first."""
    return next((rank for rank, mark in enumerate(_SLOW_MARKS) if item.get_closest_marker(mark)), _UNIT)


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _homes: Path) -> Iterator[None]:
    """Make the dangerous thing impossible, and fail the test that tries it, even when the code hides the failure."""
    if request.node.get_closest_marker("live") is None:
        _forget_credentials(monkeypatch)
    if any(request.node.get_closest_marker(mark) for mark in _MARKS_WITH_EFFECTS):
        yield
        return
    _move_home(monkeypatch, _homes / str(next(_numbers)))
    tried: list[str] = []
    _close_network(monkeypatch, tried)
    yield
    assert tried == [], "a unit test reached for another computer"


def _forget_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith(_CREDENTIALS)]:
        monkeypatch.delenv(name)


def _move_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Runs, leases' turns and local machines of this test are in a folder of its own, which it may make."""
    monkeypatch.setenv("LEASEHOLD_HOME", str(home / "leasehold"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    for name in ("LEASEHOLD_STATE_DIR", "LEASEHOLD_LOCAL_CLOUD_DIR", "LEASEHOLD_LOCAL_FAULT", "LEASEHOLD_SETTLE_S"):
        monkeypatch.delenv(name, raising=False)


def _close_network(monkeypatch: pytest.MonkeyPatch, tried: list[str]) -> None:
    def refuse(host: object) -> None:
        tried.append(str(host))
        pytest.fail(f"a unit test reached for {host!r}", pytrace=False)

    def guarded(method: str) -> Any:
        original = getattr(socket.socket, method)

        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(_LOOPBACK):
                refuse(address[0])
            return original(self, address)

        return connect

    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name and not name.startswith(_LOOPBACK):
            refuse(name)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded("connect"))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded("connect_ex"))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
