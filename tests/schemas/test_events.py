"""Events: one line each, read on from where one stopped, and a torn line never hides the others."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.events import append_event, read_events


def test_an_event_is_written_with_its_time_and_comes_back(tmp_path: Path) -> None:
    written = append_event(tmp_path / "e", "cloud", "machine_created", "zwei\nZeilen", index=3, usd=2.5)

    ((read, _),) = read_events(tmp_path / "e")

    assert read == written
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.time)
    assert (read.source, read.message, read.data) == ("cloud", "zwei\nZeilen", {"index": 3, "usd": 2.5})
    assert (tmp_path / "e").read_bytes().count(b"\n") == 1


def test_without_a_file_there_are_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "none")) == []


def test_reading_goes_on_behind_the_last_event_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "e"
    append_event(path, "planner", "first", "1")
    ((_, offset),) = read_events(path)
    append_event(path, "planner", "second", "2")

    assert [event.event for event, _ in read_events(path, offset)] == ["second"]
    assert [event.event for event, _ in read_events(path)] == ["first", "second"]


def test_a_torn_last_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "e"
    append_event(path, "planner", "first", "1")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    ((_, offset),) = read_events(path)

    path.write_bytes(whole + whole)

    assert [event.event for event, _ in read_events(path, offset)] == ["first"]


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "e"
    append_event(path, "planner", "first", "1")
    with path.open("ab") as file:
        file.write(b'{"time": \n\xff\xfe\n[]\n{"time": "t\xe2\x82"}\n')
    append_event(path, "planner", "second", "2")

    assert [event.event for event, _ in read_events(path)] == ["first", "second"]
