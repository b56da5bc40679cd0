from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runtime.batch.batch_input
from runtime.batch.batch_input import InputReport, check_input
from runtime.batch.batch_lines import LineFacts
from schemas.errors import SpecError
from tests.runtime.conftest import ENDPOINT, make_line


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., InputReport]:
    def write_and_check(data: bytes, **options: Any) -> InputReport:
        path = tmp_path / "in.jsonl"
        path.write_bytes(data)
        return check_input(path, **({"endpoint": ENDPOINT, "model": "tiny"} | options))

    return write_and_check


def places(report: InputReport) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in report.problems]


def test_a_good_file_is_counted(check: Callable[..., InputReport]) -> None:
    lines = [make_line("a", max_tokens=10), make_line("b", max_tokens=5), make_line("c", max_tokens=None)]
    data = b"\n".join(lines)

    report = check(data)

    assert (report.lines, report.problem_count, report.model) == (3, 0, "tiny")
    assert (report.size, report.end) == (len(data), len(data))
    assert (report.max_tokens_sum, report.max_tokens_unknown) == (15, 1)
    assert report.body_bytes == sum(len(json.dumps(json.loads(line)["body"])) for line in lines)
    report.raise_if_bad()


def test_blank_lines_windows_ends_and_a_byte_order_mark_are_fine(check: Callable[..., InputReport]) -> None:
    data = b"\xef\xbb\xbf" + make_line("a") + b"\r\n\r\n  \t\n" + make_line("b") + b"\n\n\n"

    report = check(data)

    assert (report.lines, report.problem_count) == (2, 0)


def test_problems_carry_the_line_numbers_of_an_editor(check: Callable[..., InputReport]) -> None:
    report = check(b"\n".join([b"", make_line("a"), b"", b"{", make_line(""), make_line("b")]))

    assert places(report) == [(4, "invalid_json_line"), (5, "empty_custom_id")]


def test_a_byte_order_mark_elsewhere_is_a_problem(check: Callable[..., InputReport]) -> None:
    assert places(check(make_line("a") + b"\n\xef\xbb\xbf" + make_line("b"))) == [(2, "invalid_json_line")]


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf", b" \n\n\t"])
def test_a_file_without_requests_is_empty(check: Callable[..., InputReport], data: bytes) -> None:
    assert places(check(data)) == [(0, "empty_file")]


def test_each_repeated_id_names_the_line_that_had_it_first(check: Callable[..., InputReport]) -> None:
    lines = [make_line("a"), b"", make_line("b"), make_line("a"), make_line("\u00e9"), make_line("a"), make_line("b")]
    lines.append(make_line("X").replace(b'"X"', b'"\\u00e9"'))

    report = check(b"\n".join(lines))

    assert places(report) == [(line, "duplicate_custom_id") for line in (4, 6, 7, 8)]
    assert "'a' is also that of line 1" in report.problems[0].message
    assert "'b' is also that of line 3" in report.problems[2].message


def test_equal_hashes_of_different_ids_are_no_duplicates(
    check: Callable[..., InputReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.batch.batch_input, "hash_bytes", lambda _data: 7)

    assert places(check(make_line("a") + b"\n" + make_line("b") + b"\n" + make_line("a"))) == [
        (3, "duplicate_custom_id")
    ]


def test_the_first_hundred_problems_are_kept_and_all_are_counted(check: Callable[..., InputReport]) -> None:
    report = check(b"{\n" * 250 + (make_line("a") + b"\n") * 51)

    assert len(report.problems) == 100
    assert report.problem_count == 300
    with pytest.raises(SpecError) as caught:
        report.raise_if_bad()
    assert caught.value.omitted == 200
    assert "300 problems" in str(caught.value)


def test_a_limit_leaves_the_rest_of_the_file_unread(check: Callable[..., InputReport]) -> None:
    first = b"\n".join([make_line("a"), b"", make_line("b")]) + b"\n"

    report = check(first + b"{broken", line_limit=2)

    assert (report.lines, report.problem_count, report.end) == (2, 0, len(first))


def test_a_line_longer_than_we_take_is_one_problem(
    check: Callable[..., InputReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.batch.input_lines.MAX_LINE_BYTES", 400)
    monkeypatch.setattr("runtime.batch.batch_lines.MAX_LINE_BYTES", 400)

    report = check(b"\n".join([make_line("a"), make_line("b", pad="x" * 5000), make_line("c")]))

    assert places(report) == [(2, "invalid_json_line")]
    assert "longer than" in report.problems[0].message
    assert report.lines == 3


def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such input file"):
        check_input(tmp_path / "none", endpoint=ENDPOINT, model="tiny")
    with pytest.raises(SpecError, match="a folder"):
        check_input(tmp_path, endpoint=ENDPOINT, model="tiny")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([b"", b" ", b"{", b'{"a":1}', b"\xff", b"x" * 30, *map(make_line, "abcde")]), max_size=12),
    st.booleans(),
)
def test_every_request_is_found_where_it_is(tmp_path: Path, lines: list[bytes], ends: bool) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if ends else b""))
    seen: list[tuple[int, bytes]] = []

    def keep(_ordinal: int, offset: int, _hash: int, facts: LineFacts) -> None:
        seen.append((offset, bytes(facts.body)))

    report = runtime.batch.batch_input.scan_input(path, endpoint=ENDPOINT, model="tiny", sink=keep)

    good = [line for line in lines if line.startswith(b'{"custom_id"')]
    assert report.lines == sum(not (line.isspace() or not line) for line in lines)
    assert len(seen) == len(good)
    for (offset, body), line in zip(seen, good, strict=True):
        assert path.read_bytes()[offset:].startswith(line)
        assert body in line
    repeats = sum(problem.code == "duplicate_custom_id" for problem in report.problems)
    assert repeats == len(good) - len(set(good))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "input.jsonl")

    with pytest.raises(SpecError, match="a pipe or a device") as caught:
        check_input(tmp_path / "input.jsonl", endpoint="/v1/chat/completions", model="")

    assert "cat " in caught.value.fix
