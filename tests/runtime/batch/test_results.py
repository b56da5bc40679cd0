from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batch.results import ResultWriter
from runtime.batch.tokens import Tokens, is_json, read_tokens

writer = ResultWriter("run-1")


def make(body: bytes, status: int = 200, line: int = 26) -> bytes:
    return writer.make_answer(line, b'"a"', status=status, request_id="req", body=body)


def test_an_answer_is_wrapped_and_not_touched() -> None:
    body = b'{"n": 1.10000000000000000001,"big":1E400, "s":"\\ud83d"}'

    assert make(body) == (
        b'{"id":"batch_req_run-10000001a","custom_id":"a","response":{"status_code":200,"request_id":"req","body":'
        + body
        + b'},"error":null}\n'
    )


def test_line_breaks_between_tokens_go_and_nothing_else() -> None:
    line = make(b'{\r\n  "a": 1.500,\n  "b": "x\\ny"\n}\n')

    assert line.count(b"\n") == 1
    assert b'"body":{  "a": 1.500,  "b": "x\\ny"}' in line


@pytest.mark.parametrize(
    ("body", "kept"), [(b'{"error":{}}', {"error": {}}), (b"<p>\n\xff", "<p>\n\ufffd"), (b"", ""), (b"NaN", "NaN")]
)
def test_a_refusal_keeps_its_body_as_json_or_as_text(body: bytes, kept: object) -> None:
    line = writer.make_refusal(1, b'"a"', status=400, request_id="r", body=body)

    assert json.loads(line)["response"] == {"status_code": 400, "request_id": "r", "body": kept}
    assert json.loads(line)["error"] is None
    result = writer.read(line)
    assert result is not None
    assert (result.line, result.failed, result.code) == (1, True, "")


def test_a_failure_has_an_error_and_no_response() -> None:
    line = writer.make_failure(5, b'"a"', code="batch_expired", message='quote " it')

    assert json.loads(line)["response"] is None
    assert json.loads(line)["error"] == {"code": "batch_expired", "message": 'quote " it'}
    result = writer.read(line)
    assert result is not None
    assert (result.line, result.failed, result.code) == (5, True, "batch_expired")


@pytest.mark.parametrize(
    "body",
    [b'{"a":1}', b'{"s":"\\ud83d"}', b'{"s":"\\ud83d","usage":{"completion_tokens":3}}', b'{"usage":"none"}', b"[]"],
)
def test_what_is_written_can_be_read(body: bytes) -> None:
    assert is_json(body)

    result = writer.read(make(body))

    assert result is not None
    assert (result.line, result.failed) == (26, False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0\0\0\n",
        b'{"id":"x"}\n',
        make(b'{"a":1}')[:-1],
        make(b'{"a":1}')[:-3] + b"\n",
        make(b'{"a":1}')[:-1] + b"\r\n",
        make(b'{"a":1}')[:-1] + b" \n",
        make(b'{"a":1}').replace(b',"error"', b',\r"error"'),
        b" " + make(b'{"a":1}'),
        make(b'{"a":}'),
        make(b'{"a":"\xff"}'),
        ResultWriter("run-2").make_failure(1, b'"a"', code="c", message="m"),
        b'{"id":"batch_req_run-1zzzzzzzz","custom_id":"a","response":null,"error":{"code":"c","message":""}}\n',
        b'{"id":"batch_req_run-100000001","custom_id":"a","response":null,"error":null}\n',
    ],
)
def test_what_is_not_a_whole_line_of_this_run_is_not_read(data: bytes) -> None:
    assert writer.read(data) is None


@given(st.binary(max_size=100))
def test_no_bytes_crash_the_reading(data: bytes) -> None:
    assert writer.read(data + b"\n") is None


@given(st.integers(0, 2**33), st.text(max_size=30), st.integers(200, 599))
def test_line_and_status_come_back(line: int, text: str, status: int) -> None:
    body = json.dumps({"text": text}).encode()

    result = writer.read(make(body, status=status, line=line))

    assert result is not None
    assert (result.line, result.failed) == (line, status >= 300)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (b'{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}', Tokens(3, 0, 4, 0)),
        (b'{"input_tokens":3,"output_tokens":4,"input_tokens_details":{"cached_tokens":2}}', Tokens(3, 2, 4, 0)),
        (
            b'{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8},'
            b'"completion_tokens_details":{"reasoning_tokens":2}}',
            Tokens(9, 8, 5, 2),
        ),
        (b'{"prompt_tokens":3,"prompt_tokens_details":null,"completion_tokens":null}', Tokens(3, 0, 0, 0)),
        (b"null", Tokens()),
        (b'{"prompt_tokens":"three"}', Tokens()),
    ],
)
def test_tokens_are_read_from_every_kind_of_usage(usage: bytes, expected: Tokens) -> None:
    assert read_tokens(b'{"id":"x","usage":%b}' % usage) == expected


@pytest.mark.parametrize("body", [b"", b"{", b'{"usage":"x"', b'{"a":NaN}', b'{"a":"\xff"}', b"<html>", b"[" * 200_000])
def test_a_body_that_is_no_json_has_no_tokens(body: bytes) -> None:
    assert read_tokens(body) is None
