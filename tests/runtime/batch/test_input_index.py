from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import runtime.batch.input_index
from runtime.batch.batch_input import hash_bytes
from runtime.batch.input_index import BatchInput, open_input
from schemas.errors import SpecError
from tests.runtime.conftest import ENDPOINT, make_line

Opener = Callable[..., BatchInput]


@pytest.fixture
def open_batch(tmp_path: Path) -> Iterator[Opener]:
    with contextlib.ExitStack() as stack:

        def write_and_open(lines: list[bytes] | None = None, *, model: str = "tiny", line_limit: int = 0) -> BatchInput:
            path = tmp_path / "in.jsonl"
            if lines is not None:
                path.write_bytes(b"\n".join(lines))
            batch = open_input(path, tmp_path / "input.index", endpoint=ENDPOINT, model=model, line_limit=line_limit)
            stack.callback(batch.close)
            return batch

        yield write_and_open


LINES = [b"\xef\xbb\xbf" + make_line("a"), b"  ", make_line("b", big=10**30), b"", b"", make_line("c"), b"\t"]


def test_requests_are_read_in_any_order(open_batch: Opener) -> None:
    batch = open_batch(LINES)

    assert batch.lines == 3
    for line, custom_id in [(2, b'"c"'), (0, b'"a"'), (1, b'"b"'), (1, b'"b"')]:
        request = batch.read(line)
        assert bytes(request.custom_id) == custom_id
        assert batch.hashes(line) == (hash_bytes(custom_id.strip(b'"')), hash_bytes(request.body))
    with pytest.raises(IndexError):
        batch.read(3)


def test_an_untouched_input_is_not_read_again(open_batch: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    open_batch(LINES)
    monkeypatch.setattr(runtime.batch.input_index, "scan_input", None)

    assert open_batch().lines == 3


def test_a_copy_with_another_time_is_the_same_input(open_batch: Opener, tmp_path: Path) -> None:
    open_batch(LINES)
    os.utime(tmp_path / "in.jsonl", (5, 5))

    assert open_batch().lines == 3
    assert open_batch().header.modified_ns == 5_000_000_000


CHANGED: list[tuple[str, list[bytes]]] = [
    ("a body", [*LINES[:5], make_line("c", max_tokens=9), b"\t"]),
    ("an id", [*LINES[:5], make_line("d"), b"\t"]),
    ("one more", [*LINES, make_line("d")]),
    ("one less", LINES[:3]),
    ("blanks between", [*LINES[:3], b"", *LINES[3:]]),
]


@pytest.mark.parametrize("lines", [case[1] for case in CHANGED], ids=[case[0] for case in CHANGED])
def test_a_changed_input_is_refused_until_the_old_one_is_back(open_batch: Opener, lines: list[bytes]) -> None:
    open_batch(LINES)

    with pytest.raises(SpecError, match="the input changed"):
        open_batch(lines)
    with pytest.raises(SpecError, match="the input changed"):
        open_batch()

    assert open_batch(LINES).lines == 3


def test_a_change_with_size_and_time_kept_is_seen_at_the_edges(open_batch: Opener, tmp_path: Path) -> None:
    batch = open_batch(LINES)
    changed = [*LINES[:5], make_line("d"), b"\t"]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(changed))
    os.utime(tmp_path / "in.jsonl", ns=(0, batch.header.modified_ns))

    with pytest.raises(SpecError, match="the input changed"):
        open_batch()


def test_a_limit_may_be_changed(open_batch: Opener) -> None:
    assert open_batch(LINES, line_limit=1).lines == 1
    assert open_batch(line_limit=2).lines == 2
    assert open_batch().lines == 3
    assert open_batch(line_limit=2).lines == 2


def test_an_open_input_that_is_written_to_is_noticed(open_batch: Opener, tmp_path: Path) -> None:
    batch = open_batch(LINES)
    batch.raise_if_changed()
    (tmp_path / "in.jsonl").write_bytes(b"short")

    with pytest.raises(SpecError, match="while it was being read"):
        batch.raise_if_changed()
    with pytest.raises(SpecError, match="while it was being read"):
        batch.read(2)


@pytest.mark.parametrize("line", [0, 1])
def test_a_request_that_was_written_over_in_place_is_not_read(open_batch: Opener, tmp_path: Path, line: int) -> None:
    batch = open_batch(LINES)
    data = (tmp_path / "in.jsonl").read_bytes()
    with (tmp_path / "in.jsonl").open("r+b") as file:
        file.write(data.replace(b'"a"', b'"x"').replace(b'"b"', b'"y"'))

    with pytest.raises(SpecError, match="while it was being read"):
        batch.read(line)


def test_an_input_with_problems_leaves_no_index(open_batch: Opener, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        open_batch([b"{"])

    assert caught.value.problems[0].code == "invalid_json_line"
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_index_of_another_version_is_refused(open_batch: Opener, tmp_path: Path) -> None:
    open_batch(LINES)
    data = (tmp_path / "input.index").read_bytes()
    header = json.loads(data[:4096]) | {"version": 99}
    (tmp_path / "input.index").write_bytes(json.dumps(header).encode().ljust(4096) + data[4096:])

    with pytest.raises(SpecError, match="version 99"):
        open_batch()


def test_many_lines_fill_more_than_one_chunk(open_batch: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.batch.input_index, "_CHUNK_RECORDS", 3)

    batch = open_batch([make_line(f"r{number}") for number in range(10)])

    assert [bytes(batch.read(line).custom_id) for line in range(10)] == [b'"r%d"' % number for number in range(10)]
