"""Files that other processes read: whole or not there, made once, appended whole, locked by the kernel."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from schemas.errors import LeaseholdError
from schemas.files import append_line, create_file, hold_lock, replace_file

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from schemas.files import hold_lock
with hold_lock(Path(sys.argv[1]), exclusive=True, timeout_s=5):
    print("held", flush=True)
    sys.stdin.read()
"""


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_replaced_file_has_the_new_content_and_leaves_nothing_behind(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "status.json"
    for data in (b"first, which is longer", b"second"):
        replace_file(path, data, mode=0o600, durable=durable)

    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list_names(tmp_path) == ["status.json"]


def test_readers_see_the_old_file_or_the_new_one_and_never_half(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    contents = {b"a" * 100_000, b"b" * 50_000}
    replace_file(path, b"a" * 100_000)
    stopped = threading.Event()

    def write() -> None:
        while not stopped.is_set():
            for data in contents:
                replace_file(path, data)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {path.read_bytes() for _ in range(300)}
    stopped.set()
    writer.join()

    assert seen <= contents


def test_a_replacement_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()

    with pytest.raises(OSError):
        replace_file(tmp_path / "folder", b"data")

    assert list_names(tmp_path) == ["folder"]


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"

    assert create_file(path, b"first", mode=0o600)
    assert not create_file(path, b"second")

    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list_names(tmp_path) == ["plan.json"]


def test_of_many_that_create_at_once_one_wins_and_all_read_its_content(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    results: list[tuple[bool, bytes]] = []

    def create(number: int) -> None:
        won = create_file(path, b"%d" % number * 1000)
        results.append((won, path.read_bytes()))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(won for won, _ in results) == 1
    assert len({data for _, data in results}) == 1


@pytest.mark.parametrize("durable", [False, True])
def test_lines_are_appended_whole_even_by_many_at_once(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "events.jsonl"

    def append(letter: str) -> None:
        for _ in range(20):
            append_line(path, letter.encode() * 3000, durable=durable, mode=0o600)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = path.read_bytes().splitlines()
    assert len(lines) == 80
    assert all(len(line) == 3000 and len(set(line)) == 1 for line in lines)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.wire
def test_a_lock_of_another_process_is_waited_for_and_then_told(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"

        with (
            pytest.raises(LeaseholdError, match="another process holds this lock") as caught,
            hold_lock(lock, exclusive=False, timeout_s=0.05),
        ):
            pass
        assert caught.value.where == str(lock)

        holder.kill()
        with hold_lock(lock, exclusive=True, timeout_s=5):
            pass


def test_shared_holders_go_together_and_keep_an_exclusive_one_out(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with (
        hold_lock(lock, exclusive=False, timeout_s=1),
        hold_lock(lock, exclusive=False, timeout_s=1),
        pytest.raises(LeaseholdError),
        hold_lock(lock, exclusive=True, timeout_s=0.05),
    ):
        pass

    with hold_lock(lock, exclusive=True, timeout_s=1):
        pass


def test_a_lock_is_free_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(tmp_path / "x.lock", exclusive=True, timeout_s=1):
        raise ZeroDivisionError

    with hold_lock(tmp_path / "x.lock", exclusive=True, timeout_s=0):
        pass
