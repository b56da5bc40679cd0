"""What tells a process from a later one with its id, and that no clock has a say in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from schemas.process_birth import is_same_process, read_birth
from tests.clock_set import set_clock


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_birth_stays_and_is_no_others(sleeper: subprocess.Popen[bytes]) -> None:
    assert read_birth(sleeper.pid) == read_birth(sleeper.pid) != ""
    assert read_birth(sleeper.pid) != read_birth(os.getpid())


def test_who_is_gone_has_none(sleeper: subprocess.Popen[bytes]) -> None:
    birth = read_birth(sleeper.pid)
    sleeper.kill()
    sleeper.wait()

    assert read_birth(sleeper.pid) == ""
    assert not is_same_process(sleeper.pid, birth=birth, started_at=0.0)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_set_makes_nobody_another(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    birth, started_at = read_birth(sleeper.pid), psutil.Process(sleeper.pid).create_time()
    set_clock(monkeypatch, seconds)

    assert is_same_process(sleeper.pid, birth=birth, started_at=started_at)
    assert not is_same_process(sleeper.pid, birth=f"{birth}0", started_at=psutil.Process(sleeper.pid).create_time())


def test_without_a_birth_the_start_decides(sleeper: subprocess.Popen[bytes]) -> None:
    started_at = psutil.Process(sleeper.pid).create_time()

    assert is_same_process(sleeper.pid, birth="", started_at=started_at + 1)
    assert not is_same_process(sleeper.pid, birth="", started_at=started_at + 3)
    assert not is_same_process(2**22 - 1, birth="", started_at=0.0)


def test_a_process_that_the_system_hides_is_somebody_elses(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with /proc mounted hidepid=1, once an id was given to another user's process."""
    birth, started_at = read_birth(sleeper.pid), psutil.Process(sleeper.pid).create_time()

    def refuse(*_: object) -> NoReturn:
        raise PermissionError

    def deny(*_: object) -> NoReturn:
        raise psutil.AccessDenied(sleeper.pid)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(psutil.Process, "create_time", deny)

    assert read_birth(sleeper.pid) == ""
    assert not is_same_process(sleeper.pid, birth=birth, started_at=started_at)
    assert not is_same_process(sleeper.pid, birth="", started_at=started_at)
