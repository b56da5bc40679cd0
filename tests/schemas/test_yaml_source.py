from __future__ import annotations

from pathlib import Path

import pytest

from schemas.yaml_source import MAX_BYTES, Document, load_document, parse_document, place_problem

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
)
# (text, line:column and code of each problem, words of the first message)
BROKEN = [
    ("", ["0:0 empty_file"], "this file is empty"),
    ("# only a comment\n", ["0:0 empty_file"], "this file is empty"),
    ("---\n", ["0:0 empty_file"], "this file is empty"),
    ("- a\n- b\n", ["1:1 not_a_mapping"], "found a list"),
    ("just words\n", ["1:1 not_a_mapping"], "found a single value"),
    ("a:\n\tb: 1\nc:\n\td: 1\n", ["2:1 yaml_tab", "4:1 yaml_tab"], "a tab"),
    ("a:\n  b: 1\n  \tc: 1\n", ["3:3 yaml_tab"], "a tab"),
    ("a: 1\na: 2\nb: {c: 1, c: 2}\n", ["2:1 duplicate_key", "3:11 duplicate_key"], "`a` is given twice"),
    ("a: 1\n---\nb: 2\n", ["2:1 many_documents"], "a second document"),
    ('a: "open\nb: 1\n', ["1:4 yaml_syntax"], "in quotes that starts here has no end"),
    ("a: b: c\n", ["1:5 yaml_syntax"], "a colon is not expected here"),
    ("a: [1, 2\nb: 3\n", ["2:2 yaml_syntax"], "closing `]` of the bracket of line 1"),
    ("a: {b: 1\n", ["2:1 yaml_syntax"], "closing `}` of the bracket of line 1"),
    ("a: @b\n", ["1:4 yaml_syntax"], "cannot start with `@`"),
    ("a: 1\nb\nc: 2\n", ["2:1 yaml_syntax"], "the `:` after this key is missing"),
    ('a: "\\q"\n', ["1:6 yaml_syntax"], "`\\q` means nothing"),
    ("a: *b\n", ["1:4 yaml_alias"], "`*b` names no anchor"),
    ("a: &a [*a]\n", ["1:8 yaml_alias"], "inside of what it names"),
    ("<<: {a: 1}\n", ["1:1 yaml_merge"], "not part of YAML 1.2"),
    ("? [a]\n: 1\n", ["1:3 yaml_key"], "a key must be a word"),
    ("a: !!python/object:os.system x\n", ["1:4 yaml_tag"], "are not used here"),
    ("%YAML 1.1\n---\na: 1\n", ["1:1 yaml_version"], "an older YAML"),
    ("a: .nan\nb: 1e999\n", ["1:4 bad_number", "2:4 bad_number"], "not-a-number"),
    ("a: " + "9" * 5000 + "\n", ["1:4 bad_number"], "too large"),
    ("a: b\x07\n", ["1:5 not_text"], "U+0007"),
    ('{"a": "\\ud83d"}', ["1:7 yaml_syntax"], "half of a surrogate pair"),
    ("a: " + "[" * 60, ["1:35 too_deep"], "more than 32 levels"),
    ("a: [" + "1, " * 30_000 + "]", ["1:59996 too_large"], "more than 20,000 values"),
    (BOMB, ["1:4 too_large"], "unfold to too many values"),
    ('{"custom_id": "a", "body": {}}\n', ["1:1 batch_file"], "a batch file, not a job"),
    ('{"url": "/v1", "custom_id": "a"}\n{"custom_id": "b"}\n', ["1:1 batch_file"], "a batch file, not a job"),
]


@pytest.mark.parametrize(("text", "places", "words"), BROKEN, ids=[repr(text[:24]) for text, _, _ in BROKEN])
def test_broken_text_gives_problems_with_places(text: str, places: list[str], words: str) -> None:
    loaded = parse_document(text, file="job.yaml")

    assert [f"{each.line}:{each.column} {each.code}" for each in loaded.problems] == places
    assert words in loaded.problems[0].message
    assert all(each.file == "job.yaml" for each in loaded.problems)


def read(text: str) -> Document:
    loaded = parse_document(text, file="f")
    assert loaded.document is not None and loaded.problems == ()
    return loaded.document


def test_words_that_older_yaml_took_for_booleans_numbers_and_dates_are_text() -> None:
    data = read(
        "a: no\nb: on\nc: 1_000\nd: 2026-01-01\ne: 012\nf: 0x1F\ng: 1e3\nh: ~\ni: 'true'\nj: TRUE\nk: 12:30\n"
    ).data

    assert data == {
        "a": "no", "b": "on", "c": "1_000", "d": "2026-01-01", "e": 12, "f": 31, "g": 1000.0,
        "h": None, "i": "true", "j": True, "k": "12:30",
    }  # fmt: skip


def test_every_key_and_value_has_its_place() -> None:
    document = read("machines:\n  candidates:\n    - {cloud: local}\n    - gpu: H100\n")

    key = document.locate(("machines", "candidates", 1, "gpu"), at_key=True)
    value = document.locate(("machines", "candidates", 0, "cloud"))

    assert (key.line, key.column) == (4, 7)
    assert (value.line, value.column) == (3, 15)


def test_what_is_missing_is_placed_where_it_would_belong() -> None:
    document = read("name: x\nlimits:\n  max_usd: 1\n")

    missing = document.locate(("limits", "max_hours"))
    missing_at_top = document.locate(("input",))

    assert (missing.line, missing.column) == (2, 1)
    assert (missing_at_top.line, missing_at_top.column) == (1, 1)


def test_aliases_are_written_out_and_keep_the_place_of_what_they_stand_for() -> None:
    document = read("a: &x {k: 1}\nb: *x\n")

    assert document.data == {"a": {"k": 1}, "b": {"k": 1}}
    assert document.locate(("b", "k")).line == 1


def test_json_is_read_with_tabs_escapes_and_places() -> None:
    document = read('{\n\t"a": {"b": "x\\ud83d\\ude00\\/\\u00e9"},\n\t"c": [1, true, null]\n}\n')

    assert document.data == {"a": {"b": "x😀/é"}, "c": [1, True, None]}
    assert (document.locate(("c", 1)).line, document.locate(("c", 1)).column) == (3, 11)


def test_windows_lines_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\nlimits: {a: 1}\r\n")

    loaded = load_document(path)

    assert loaded.problems == ()
    assert loaded.document is not None
    assert loaded.document.data == {"name": "x", "limits": {"a": 1}}
    assert (loaded.document.locate(("limits", "a")).line, loaded.document.locate(("limits", "a")).column) == (2, 13)


def test_a_missing_file_is_a_problem_that_names_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("a: 1\n")

    problem = load_document(tmp_path / "job.yml").problems[0]

    assert problem.code == "missing_file"
    assert problem.fix == f"Did you mean {tmp_path / 'job.yaml'}?"


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (b"\x89PNG\r\n\x00\x00", "not_text", (0, 0)),
        (b"name: caf\xe9\n", "not_utf8", (1, 10)),
        ("name: x\n".encode("utf-16"), "not_utf8", (1, 1)),
        (b"a: 1\n" + b"#" * MAX_BYTES, "too_large", (0, 0)),
    ],
)
def test_a_file_that_is_no_text_is_a_problem(tmp_path: Path, content: bytes, code: str, place: tuple[int, int]) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)

    loaded = load_document(path)

    assert loaded.document is None
    assert [(each.code, (each.line, each.column)) for each in loaded.problems] == [(code, place)]


def test_a_folder_a_device_and_an_impossible_path_are_problems(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    codes = [load_document(path).problems[0].code for path in (tmp_path, Path("/dev/null"), loop, Path("x" * 5000))]

    assert codes == ["not_a_file", "not_a_file", "missing_file", "unreadable"]


def test_a_file_without_permission_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may read everything, so the refusal is given by hand.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "job.yaml"
    path.write_text("a: 1\n")
    monkeypatch.setattr(Path, "open", refuse)

    problem = load_document(path).problems[0]

    assert (problem.code, problem.message) == ("unreadable", "this file cannot be read: Permission denied")


def test_a_problem_found_later_gets_the_place_of_its_value(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: x\nmachines:\n  candidates:\n    - {cloud: lambda, gpu: H1000}\n")

    found = place_problem(path, ("machines", "candidates", 0, "gpu"), "no such GPU", code="unknown_gpu")
    gone = place_problem(tmp_path / "gone.yaml", ("name",), "no such GPU", code="unknown_gpu")

    assert str(found) == f"{path}:4:28: no such GPU [unknown_gpu]"
    assert (gone.line, gone.path) == (0, "name")


def test_a_text_that_is_read_twice_gives_two_documents_that_share_nothing() -> None:
    first, second = (parse_document("a: {b: [1]}\na: 2\n", file=file) for file in ("one", "two"))
    assert first.document is not None and second.document is not None
    first.document.data["a"]["b"].append(2)

    assert second.document.data == {"a": {"b": [1]}}
    assert [each.file for each in (*first.problems, *second.problems)] == ["one", "two"]
