"""What a person sees of `dispatch`, with a process that only writes what a dispatcher writes."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from stacks.verbs.dispatch_watch import describe_progress, run_watched
from tests.stacks.run_files import make_progress

pytestmark = pytest.mark.wire
RUNNING = make_progress(
    total=5000, completed=1200, failed=12, requests_per_s=312.0, output_tokens_per_s=4100.0, eta_s=12.0
)
# argv: folder, progress without pid, seconds, exit code
SEEMING = """
import json, os, signal, sys, time
folder, progress, seconds, code = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: (print("stopped in order", file=sys.stderr, flush=True), os._exit(7)))
with open(f"{folder}/new", "w") as file:
    json.dump(json.loads(progress) | {"pid": os.getpid()}, file)
os.replace(f"{folder}/new", f"{folder}/progress.json")
print("2026-09-21 INFO 127.0.0.1 is [ready]", file=sys.stderr, flush=True)
time.sleep(float(seconds))
sys.exit(int(code))
"""


# It waits for what is in flight, until it is told a second time.
PATIENT = SEEMING.replace(
    "signal.signal(signal.SIGTERM",
    """
signal.signal(signal.SIGINT, lambda *_: (print("written and ended", file=sys.stderr, flush=True), os._exit(7)))
signal.signal(signal.SIGTERM, lambda *_: open(f"{folder}/asked", "w").close())
(lambda *_: None)(signal.SIGTERM""",
)


def seem(folder: Path, *, seconds: float = 0.6, code: int = 0, source: str = SEEMING) -> list[str]:
    progress = msgspec.json.encode(RUNNING).decode()
    return [sys.executable, "-c", source, str(folder), progress, str(seconds), str(code)]


def make_console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=110, markup=False, highlight=False)


def read(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_counts_rate_and_time_left_below_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    console = make_console(terminal=True)

    assert run_watched(seem(tmp_path, code=10), tmp_path, console) == 10

    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", read(console))
    assert "1,212 of 5,000  12 failed  312 requests/s  4,100 tokens/s  12 s left" in shown
    assert "127.0.0.1 is [ready]\n" in shown
    assert capfd.readouterr().out == ""


def test_no_color_leaves_the_line_without_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = make_console(terminal=True)

    run_watched(seem(tmp_path), tmp_path, console)

    assert "12 failed" in read(console)
    assert re.findall(r"\x1b\[[\d;]*3\dm", read(console)) == []


def test_without_a_terminal_a_plain_line_comes_now_and_then(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    console = make_console(terminal=False)

    assert run_watched(seem(tmp_path), tmp_path, console, tell_every_s=0.2) == 0

    lines = read(console).splitlines()
    assert 1 <= len(lines) <= 4
    assert all(line[10:] == describe_progress(RUNNING) for line in lines)
    out, log = capfd.readouterr()
    assert out == ""
    assert log == "2026-09-21 INFO 127.0.0.1 is [ready]\n"


def test_what_an_earlier_dispatcher_told_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_bytes(msgspec.json.encode(RUNNING))
    console = make_console(terminal=False)

    run_watched([sys.executable, "-c", "import time; time.sleep(0.3)"], tmp_path, console, tell_every_s=0.05)

    assert read(console) == ""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As a command is: workers of a parallel test run ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("terminal", [True, False])
def test_an_interrupt_of_this_process_alone_stops_the_dispatcher_in_order(
    tmp_path: Path, terminal: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    console = make_console(terminal=terminal)
    ready = threading.Thread(target=_interrupt_when_ready, args=(tmp_path / "progress.json",))
    ready.start()

    with pytest.raises(KeyboardInterrupt):
        run_watched(seem(tmp_path, seconds=30), tmp_path, console, tell_every_s=0.1)

    ready.join(10)
    assert "stopped in order" in read(console) + capfd.readouterr().err


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_of_this_process_lets_the_dispatcher_write_what_it_has_and_end_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ready = threading.Thread(target=_interrupt_when_ready, args=(tmp_path / "progress.json", tmp_path / "asked"))
    ready.start()

    with pytest.raises(KeyboardInterrupt):
        run_watched(seem(tmp_path, seconds=30, source=PATIENT), tmp_path, make_console(terminal=False))

    ready.join(10)
    assert "written and ended" in capfd.readouterr().err


def test_a_progress_in_words_says_what_is_waited_for() -> None:
    waiting = make_progress("waiting", total=3, completed=0, message="none of 1 machines answers now")

    assert describe_progress(waiting) == "0 of 3 requests, none of 1 machines answers now"


def _interrupt_when_ready(*paths: Path) -> None:
    """Once for each of these files, as soon as it is there."""
    for path in paths:
        for _ in range(1000):
            if path.exists():
                break
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)
