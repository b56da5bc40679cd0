"""The intents log: what it says after a crash in any line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.lease.intents import (
    UNKNOWN_LOG,
    CreateHistory,
    Intent,
    append_intent,
    find_tokens,
    fold_histories,
    load_intents,
    make_offer_key,
    next_try,
    unresolved,
)
from providers.lease.lease import INTENTS_FILE
from schemas.errors import LeaseholdError
from tests.providers.scripted_cloud import PREFIX, TOKEN, make_intent, make_offer

NAME = f"{PREFIX}0x1-t0rx80"
OTHER = f"{PREFIX}0x2-t0rx80"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / INTENTS_FILE).touch()
    return tmp_path


def fold(*lines: dict[str, Any]) -> CreateHistory:
    return fold_histories([make_intent(NAME), *(make_intent(NAME, **line) for line in lines)])[0]


def test_lines_round_trip(run_dir: Path) -> None:
    intent = make_intent(NAME)
    answer = make_intent(NAME, kind="answer", outcome="created", id="a-0", detail="ü")

    append_intent(run_dir, intent)
    append_intent(run_dir, answer)

    assert load_intents(run_dir).intents == (intent, answer)
    assert intent.version == 1


def test_a_missing_log_counts_as_damage_and_is_not_begun_anew(tmp_path: Path) -> None:
    assert load_intents(tmp_path) == UNKNOWN_LOG

    with pytest.raises(LeaseholdError, match=r"cannot record(.|\n)*no machine is created"):
        append_intent(tmp_path, make_intent(NAME))
    assert not (tmp_path / INTENTS_FILE).exists()


@pytest.mark.parametrize("length", range(1, 60, 7))
def test_a_line_cut_off_by_a_crash_is_ignored_and_the_next_one_is_whole(run_dir: Path, length: int) -> None:
    first, second = make_intent(NAME), make_intent(OTHER)
    append_intent(run_dir, first)
    with (run_dir / INTENTS_FILE).open("ab") as file:
        file.write(msgspec.json.encode(make_intent(OTHER))[:length])

    assert load_intents(run_dir).intents == (first,)
    assert load_intents(run_dir).damaged == 0
    append_intent(run_dir, second)
    assert load_intents(run_dir).intents == (first, second)
    assert load_intents(run_dir).damaged == 0


@pytest.mark.parametrize("line", [b"\x00\x00\x00", b'{"version":2,"new":1}', b'{"version":1,"time":3}', b"\xff{}"])
def test_a_line_that_cannot_be_read_counts_as_damage(run_dir: Path, line: bytes) -> None:
    append_intent(run_dir, make_intent(NAME))
    with (run_dir / INTENTS_FILE).open("ab") as file:
        file.write(line + b"\n")
    append_intent(run_dir, make_intent(OTHER))

    log = load_intents(run_dir)
    assert log.damaged == 1
    assert len(log.intents) == 2
    assert next_try(log, 0) == 4


def test_a_full_disk_is_told_before_anything_is_sent(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))

    with pytest.raises(LeaseholdError, match="disk is full"):
        append_intent(run_dir, make_intent(NAME))
    monkeypatch.undo()
    assert load_intents(run_dir).intents == ()


def test_the_next_name_of_an_index_is_new(run_dir: Path) -> None:
    for name in (NAME, OTHER, f"{PREFIX}1x9-t0rx80"):
        append_intent(run_dir, make_intent(name))

    assert next_try(load_intents(run_dir), 0) == 3
    assert next_try(load_intents(run_dir), 1) == 10
    assert next_try(load_intents(run_dir), 2) == 1


def test_tokens_are_read_from_names(run_dir: Path) -> None:
    append_intent(run_dir, make_intent(NAME))
    append_intent(run_dir, make_intent(OTHER))

    assert find_tokens(load_intents(run_dir)) == (TOKEN,)


@pytest.mark.parametrize(
    ("lines", "is_unresolved", "may_exist", "live_ids"),
    [
        ([], True, True, ()),
        ([{"kind": "answer", "outcome": "created", "id": "x"}], False, True, ("x",)),
        ([{"kind": "answer", "outcome": "refused"}], False, False, ()),
        ([{"kind": "answer", "outcome": "no_capacity"}], False, False, ()),
        ([{"kind": "answer", "outcome": "unclear"}], True, True, ()),
        ([{"kind": "answer", "outcome": "unclear"}, {"kind": "resolved", "outcome": "absent"}], True, True, ()),
        (
            [{"kind": "answer", "outcome": "unclear"}, {"kind": "resolved", "outcome": "adopted", "id": "x"}],
            False,
            True,
            ("x",),
        ),
        (
            [
                {"kind": "answer", "outcome": "created", "id": "x"},
                {"kind": "resolved", "outcome": "unconfirmed", "id": "x"},
            ],
            False,
            True,
            ("x",),
        ),
        (
            [
                {"kind": "answer", "outcome": "created", "id": "x"},
                {"kind": "resolved", "outcome": "deleted", "id": "x"},
            ],
            False,
            False,
            (),
        ),
        (
            [
                {"kind": "answer", "outcome": "unclear"},
                {"kind": "resolved", "outcome": "adopted", "id": "x"},
                {"kind": "resolved", "outcome": "deleted_extra", "id": "y"},
            ],
            False,
            True,
            ("x",),
        ),
    ],
)
def test_a_history_says_what_a_create_came_to(
    lines: list[dict[str, Any]], is_unresolved: bool, may_exist: bool, live_ids: tuple[str, ...]
) -> None:
    history = fold(*lines)

    assert (history.is_unresolved, history.may_exist, history.live_ids) == (is_unresolved, may_exist, live_ids)


def test_only_a_clear_answer_ends_the_doubt_about_a_create() -> None:
    adopted = fold({"kind": "answer", "outcome": "unclear"}, {"kind": "resolved", "outcome": "adopted", "id": "x"})
    created = fold({"kind": "answer", "outcome": "created", "id": "x"})

    assert adopted.unclear
    assert not created.unclear


def test_unresolved_lists_the_creates_that_nobody_knows_of(run_dir: Path) -> None:
    append_intent(run_dir, make_intent(NAME))
    append_intent(run_dir, make_intent(NAME, kind="answer", outcome="created", id="x"))
    append_intent(run_dir, make_intent(OTHER))

    assert [history.name for history in unresolved(run_dir)] == [OTHER]


def test_an_offer_key_names_place_and_kind() -> None:
    assert make_offer_key(make_offer("runpod", region="US-KS-2")) == "runpod/h100/1//US-KS-2"


def test_the_log_is_a_file_format() -> None:
    fields = [field.name for field in msgspec.structs.fields(Intent)]

    assert fields == [
        "version",
        "time",
        "kind",
        "name",
        "index",
        "attempt",
        "cloud",
        "offer",
        "price_usd_per_hour",
        "id",
        "outcome",
        "detail",
    ]
