"""Failures of resources: what kind, which machine, which try; a torn line never hides the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import MachineFailed, NoCapacity
from schemas.failure import read_failures, record_failure


def test_a_failure_says_step_machine_kind_and_exit_code(tmp_path: Path) -> None:
    error = MachineFailed("it died", where="p1", fix="Try again.")
    record_failure(tmp_path / "f", step="endpoint", index=3, attempt=2, error=error)

    (failure,) = read_failures(tmp_path / "f")

    assert (failure.step, failure.index, failure.attempt) == ("endpoint", 3, 2)
    assert (failure.kind, failure.exit_code) == ("MachineFailed", 4)
    assert failure.message == "p1: it died\n  Try again."


def test_failures_are_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        record_failure(tmp_path / "f", step="machine", index=index, attempt=1, error=NoCapacity("none"))

    assert [failure.index for failure in read_failures(tmp_path / "f")] == [2, 0, 1]


def test_without_a_file_nothing_failed(tmp_path: Path) -> None:
    assert read_failures(tmp_path / "none") == []


@pytest.mark.parametrize("torn", [b'{"time": "x", "st', b'{"time": "x\xe2\x82"}'])
def test_a_torn_line_hides_no_other(tmp_path: Path, torn: bytes) -> None:
    record_failure(tmp_path / "f", step="machine", index=0, attempt=1, error=NoCapacity("none"))
    with (tmp_path / "f").open("ab") as file:
        file.write(torn)

    assert [failure.index for failure in read_failures(tmp_path / "f")] == [0]
