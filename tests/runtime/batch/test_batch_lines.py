from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batch.batch_bodies import find_body_kind
from runtime.batch.batch_lines import LineChecker, LineFacts, read_max_tokens, read_request

ENDPOINT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
GOOD = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": {"model": "tiny", "messages": MESSAGES}}


def check(line: bytes, model: str = "tiny") -> Any:
    return LineChecker(endpoint=ENDPOINT, model=model).check(line)


def codes(line: bytes) -> list[str]:
    found = check(line)
    return [] if isinstance(found, LineFacts) else [problem.code for problem in found]


def changed(**fields: Any) -> bytes:
    return json.dumps({key: value for key, value in (GOOD | fields).items() if value is not ...}).encode()


BAD: list[tuple[str, bytes, list[str]]] = [
    ("no JSON", b"{", ["invalid_json_line"]),
    ("text", b"hello", ["invalid_json_line"]),
    ("an array", b"[1]", ["invalid_json_line"]),
    ("two values", changed() + b" {}", ["invalid_json_line"]),
    ("not UTF-8", changed().replace(b"tiny", b"ti\xff\xfe"), ["invalid_json_line"]),
    ("not UTF-8 in a skipped place", changed().replace(b'"hi"', b'"\xff"'), ["invalid_json_line"]),
    ("NaN", changed().replace(b'"hi"', b"NaN"), ["invalid_json_line"]),
    ("too deep", changed().replace(b'"hi"', b"[" * 100_000 + b"]" * 100_000), ["invalid_json_line"]),
    ("a key twice, first of the wrong type", b'{"custom_id":1,' + changed()[1:], ["invalid_json_line"]),
    ("no id", changed(custom_id=...), ["missing_custom_id"]),
    ("a number as id", changed(custom_id=7), ["missing_custom_id"]),
    ("null as id", changed(custom_id=None), ["missing_custom_id"]),
    ("empty id", changed(custom_id=""), ["empty_custom_id"]),
    ("no method", changed(method=...), ["invalid_method"]),
    ("GET", changed(method="GET"), ["invalid_method"]),
    ("post in small letters", changed(method="post"), ["invalid_method"]),
    ("no url", changed(url=...), ["url_mismatch"]),
    ("another endpoint", changed(url="/v1/embeddings"), ["url_mismatch"]),
    ("no body", changed(body=...), ["invalid_body"]),
    ("body as text", changed(body="{}"), ["invalid_body"]),
    ("body as array", changed(body=[]), ["invalid_body"]),
    ("no model", changed(body={"messages": MESSAGES}), ["model_mismatch"]),
    ("another model", changed(body={"model": "big", "messages": MESSAGES}), ["model_mismatch"]),
    ("a model that is no text", changed(body={"model": 3, "messages": MESSAGES}), ["model_mismatch"]),
    ("a stream", changed(body={"model": "tiny", "messages": MESSAGES, "stream": True}), ["stream_not_supported"]),
    (
        "a stream in words",
        changed(body={"model": "tiny", "messages": MESSAGES, "stream": "yes"}),
        ["stream_not_supported"],
    ),
    (
        "everything",
        changed(custom_id="", method="PUT", url="/", body={"model": "x", "messages": MESSAGES, "stream": True}),
        ["empty_custom_id", "invalid_method", "url_mismatch", "model_mismatch", "stream_not_supported"],
    ),
]


@pytest.mark.parametrize(("line", "expected"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_line_is_reported_with_every_code(line: bytes, expected: list[str]) -> None:
    assert codes(line) == expected


def test_a_line_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.batch.batch_lines.MAX_LINE_BYTES", 50)

    [problem] = check(changed().replace(b"{", b"[", 1))

    assert problem.code == "invalid_json_line"
    assert "longer than" in problem.message


@pytest.mark.parametrize(
    "body",
    [
        {"model": "tiny", "stream": False},
        {"model": "tiny", "stream": None, "max_tokens": None},
        {"model": "tiny", "max_tokens": 60.0, "guided_regex": {"deep": [1.5, None]}},
    ],
)
def test_what_the_engine_may_judge_is_let_through(body: dict[str, Any]) -> None:
    assert codes(changed(body=body | {"messages": MESSAGES})) == []


def test_an_empty_model_takes_the_first_and_holds_the_others_to_it() -> None:
    checker = LineChecker(endpoint=ENDPOINT, model="")

    assert isinstance(checker.check(changed(body={"model": "one", "messages": MESSAGES})), LineFacts)
    second = checker.check(changed(body={"model": "two", "messages": MESSAGES}))

    assert checker.model == "one"
    assert not isinstance(second, LineFacts)
    assert second[0].code == "model_mismatch"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"max_tokens":5}', 5),
        (b'{"max_tokens":5,"max_completion_tokens":9}', 9),
        (b"{}", -1),
        (b'{"max_tokens":null}', -1),
        (b'{"max_tokens":true}', -1),
        (b'{"max_tokens":-3}', -1),
        (b'{"max_tokens":1e3}', -1),
    ],
)
def test_max_tokens_is_read_where_it_is_a_count(body: bytes, expected: int) -> None:
    assert read_max_tokens(body) == expected


def test_id_and_body_keep_their_own_bytes() -> None:
    line = b' {"body": {"n":1.10000000000000000000001, "big":1E400},"custom_id":"\\u00e9\xc3\xa9", "x":1} \r\n'

    request = read_request(line)

    assert bytes(request.custom_id) == b'"\\u00e9\xc3\xa9"'
    assert bytes(request.body) == b'{"n":1.10000000000000000000001, "big":1E400}'


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_check(data: bytes) -> None:
    found = check(data)

    assert isinstance(found, LineFacts) or len(found) >= 1


TYPED = {*find_body_kind(ENDPOINT).names, "stream"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(min_size=1), st.dictionaries(st.text(max_size=8), JSON, max_size=5), st.booleans())
def test_every_good_line_passes_and_comes_back_as_it_was(custom_id: str, extra: dict[str, Any], escapes: bool) -> None:
    body = {key: value for key, value in extra.items() if key not in TYPED} | {"model": "tiny", "messages": MESSAGES}
    text = json.dumps(GOOD | {"custom_id": custom_id, "body": body}, ensure_ascii=escapes)
    line = text.encode("utf-8", "surrogatepass")
    if "\\ud" in text.lower() or any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        return  # surrogate pairs and halves have a test of their own

    facts = check(line)

    assert isinstance(facts, LineFacts)
    assert facts.custom_id == custom_id
    assert bytes(read_request(line).body) == bytes(facts.body)
    assert json.loads(bytes(facts.body)) == body


@given(st.dictionaries(st.sampled_from(["custom_id", "method", "url", "body", "extra"]), JSON))
def test_fast_and_slow_reading_agree(fields: dict[str, Any]) -> None:
    line = msgspec.json.encode(fields)
    try:
        found = check(line)
    except UnicodeEncodeError:
        return

    is_good = fields.get("method") == "POST" and fields.get("url") == ENDPOINT and bool(fields.get("custom_id"))
    assert isinstance(found, LineFacts) <= is_good


def test_emoji_as_surrogate_pair_is_fine_and_half_of_one_is_not() -> None:
    assert codes(changed(custom_id="x\U0001f600")) == []
    assert codes(changed(custom_id="...").replace(b"...", b"\\ud83d")) == ["invalid_json_line"]
