"""Whose turn it is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from providers.http.rate_limit import HeaderLimiter, SharedPace, make_wait_s, read_exhausted_s, read_retry_after_s
from providers.http.reply import Reply
from schemas.errors import LeaseholdError, RateLimited
from tests.providers.fake_api import FakeClock

INTERVALS = {"": 1.0, "launch": 12.0}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ('"minute";r=0;t=12, "hour";r=2800;t=1812, "day";r=49500;t=45012', 12),
        ('"minute";r=5;t=12, "hour";r=0;t=1812', 1812),
        ('"minute";r=0;t=12, "hour";r=0;t=40', 40),
        ('"minute"; r=0; t=7', 7),
        ('"minute";r=1;t=12', 0),
        ('"minute";r=0', 0),
        ("nonsense;;;r=", 0),
        ("", 0),
    ],
)
def test_the_wait_for_a_new_window_is_read_from_the_header(header: str, seconds: float) -> None:
    assert read_exhausted_s({"ratelimit": header}) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("2.5", 2.5),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("9" * 50, None),
        ("", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert read_retry_after_s({"retry-after": text}, wall=10.0) == seconds


def test_a_429_that_says_nothing_is_waited_out_longer_each_time() -> None:
    silent = Reply(status=429, text="banned you temporarily")

    assert [make_wait_s(silent, tries=tries, default_s=12, wall=0) for tries in (1, 2, 3)] == [12, 24, 48]


def test_a_429_is_waited_out_as_long_as_the_longer_of_its_two_headers_says() -> None:
    loud = Reply(status=429, headers={"retry-after": "3", "ratelimit": '"minute";r=0;t=9'})

    assert make_wait_s(loud, tries=3, default_s=12, wall=0) == 9


def test_headers_hold_back_the_next_request() -> None:
    clock = FakeClock()
    limiter = HeaderLimiter(clock.monotonic)
    limiter.note(Reply(status=200, headers={"ratelimit": '"minute";r=0;t=12'}))

    assert limiter.reserve("x", patience_s=60) == 12
    with pytest.raises(RateLimited) as caught:
        limiter.reserve("x", patience_s=5)
    assert caught.value.retry_after_s == 12
    clock.sleep(12)
    assert limiter.reserve("x", patience_s=5) == 0


def make_pace(folder: Path, clock: FakeClock, key: str = "k") -> SharedPace:
    return SharedPace(folder, key, INTERVALS, wall=clock.now)


def test_turns_are_a_second_apart_and_launches_twelve(tmp_path: Path) -> None:
    pace = make_pace(tmp_path, FakeClock())

    assert [pace.reserve("list", patience_s=60) for _ in range(3)] == [0, 1, 2]
    assert pace.reserve("launch", patience_s=60) == 3
    assert pace.reserve("launch", patience_s=60) == 15


def test_a_turn_too_far_away_is_not_taken(tmp_path: Path) -> None:
    pace = make_pace(tmp_path, FakeClock())
    pace.reserve("launch", patience_s=0)

    for _ in range(3):
        with pytest.raises(RateLimited) as caught:
            pace.reserve("launch", patience_s=3)
    assert caught.value.retry_after_s == 12
    assert pace.reserve("list", patience_s=3) == 1


def test_two_objects_with_one_key_share_their_turns_and_other_keys_do_not(tmp_path: Path) -> None:
    clock = FakeClock()
    make_pace(tmp_path, clock).reserve("list", patience_s=9)

    assert make_pace(tmp_path, clock).reserve("list", patience_s=9) == 1
    assert make_pace(tmp_path, clock, key="other").reserve("list", patience_s=9) == 0


def test_after_a_429_everybody_holds(tmp_path: Path) -> None:
    clock = FakeClock()
    make_pace(tmp_path, clock).hold(24)

    assert make_pace(tmp_path, clock).reserve("list", patience_s=60) == 24


def test_the_key_cannot_be_read_from_the_files(tmp_path: Path) -> None:
    make_pace(tmp_path, FakeClock(), key="secret_key_1234").reserve("launch", patience_s=0)

    text = "".join(f"{path.name} {path.read_text()}" for path in tmp_path.iterdir())
    assert "secret_key_1234" not in text and len(text) > 20


@pytest.mark.parametrize("damage", [b"", b"{", b'{"": "soon"}', b'{"": 99999999999}', b"\xff"])
def test_a_damaged_file_or_a_clock_set_back_stops_nobody(tmp_path: Path, damage: bytes) -> None:
    pace = make_pace(tmp_path, FakeClock())
    pace.reserve("list", patience_s=9)
    next(tmp_path.glob("*.json")).write_bytes(damage)

    assert pace.reserve("list", patience_s=9) == 0


@pytest.mark.parametrize("seconds", [5, 600, 86_400])
def test_a_clock_that_is_set_back_holds_nobody_up(tmp_path: Path, seconds: float) -> None:
    clock = FakeClock()
    make_pace(tmp_path, clock).reserve("launch", patience_s=9)
    clock.moment -= seconds

    waits = [make_pace(tmp_path, clock).reserve("list", patience_s=9) for _ in range(3)]

    assert waits == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(
    ("number", "refusing"),
    [
        (errno.ENOSPC, ["replace_file"]),
        (errno.ENOSPC, ["hold_lock", "replace_file"]),
        (errno.EROFS, ["hold_lock", "replace_file"]),
    ],
)
def test_on_a_disk_that_takes_nothing_a_process_keeps_its_pace_and_can_still_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refusing: list[str]
) -> None:
    pace = make_pace(tmp_path, FakeClock())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as full:
        for name in refusing:
            full.setattr(f"providers.http.rate_limit.{name}", refuse)
        assert [pace.reserve("delete", patience_s=9) for _ in range(3)] == pytest.approx([0, 1, 2])
    assert pace.reserve("delete", patience_s=9) == pytest.approx(3)
    assert make_pace(tmp_path, FakeClock()).reserve("delete", patience_s=9) == pytest.approx(4)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LeaseholdError, match="pace") as caught:
        make_pace(tmp_path / "file" / "sub", FakeClock()).reserve("list", patience_s=1)
    assert "LEASEHOLD_STATE_DIR" in caught.value.fix


def test_threads_never_get_the_same_turn(tmp_path: Path) -> None:
    pace = make_pace(tmp_path, FakeClock())
    turns: list[float] = []
    threads = [
        threading.Thread(target=lambda: turns.extend(pace.reserve("list", patience_s=99) for _ in range(5)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(turns) == [float(turn) for turn in range(30)]


@pytest.mark.wire
def test_processes_never_get_the_same_turn(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from providers.http.rate_limit import SharedPace\n"
        "pace = SharedPace(Path(sys.argv[1]), 'k', {'': 1.0}, wall=lambda: 1000.0)\n"
        "print(*[pace.reserve('list', patience_s=99) for _ in range(10)])\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    turns = [float(word) for process in started for word in process.communicate(timeout=30)[0].split()]

    assert sorted(turns) == [float(turn) for turn in range(30)]
