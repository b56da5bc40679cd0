"""The fields of a request's body: what OpenAI's documents give a type is held to it, the rest is the engine's to judge."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batch.batch_bodies import find_body_kind
from runtime.batch.batch_lines import LineChecker, LineFacts
from runtime.batch.line_places import find_column

CHAT, COMPLETIONS, EMBEDDINGS, RERANK = (
    f"/v1/{each}" for each in ("chat/completions", "completions", "embeddings", "rerank")
)
SAY = [{"role": "user", "content": "hi"}]
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"messages": SAY},
    COMPLETIONS: {"prompt": "hi"},
    EMBEDDINGS: {"input": "hi"},
    RERANK: {"query": "hi", "documents": ["a", "b"]},
}


def judge(endpoint: str, body: dict[str, Any], most_tokens: int = 0) -> LineFacts | list[tuple[str, str, str]]:
    line = json.dumps({"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "m"} | body}).encode()
    found = LineChecker(endpoint=endpoint, model="m", most_tokens=most_tokens).check(line)
    return found if isinstance(found, LineFacts) else [(each.code, each.path, each.message) for each in found]


# (endpoint, what is changed in a good body, path, words of the message); ... takes a field away
MISTAKES: list[tuple[str, dict[str, Any], str, str]] = [
    (CHAT, {"messages": ...}, "body", "body has no messages"),
    (CHAT, {"messages": None}, "body.messages", "messages must be a list of messages"),
    (CHAT, {"messages": "hi"}, "body.messages", "messages must be a list of messages"),
    (CHAT, {"messages": []}, "body.messages", "messages is empty"),
    (CHAT, {"messages": ["hi"]}, "body.messages[0]", 'must be an object with "role" and "content"'),
    (CHAT, {"messages": [*SAY, {"content": "hi"}]}, "body.messages[1]", "messages[1] has no role"),
    (CHAT, {"messages": [{"role": 1, "content": "hi"}]}, "body.messages[0].role", "must be a text"),
    (CHAT, {"messages": [{"role": "user"}]}, "body.messages[0]", "messages[0] has no content"),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "body.messages[0]", "has no content"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "body.messages[0].content", "a text or a list of parts"),
    (CHAT, {"messages": [{"role": "user", "content": ["hi"]}]}, "body.messages[0].content[0]", "must be an object"),
    (CHAT, {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, "body.messages[0].content[0]", "has no type"),
    (CHAT, {"messages": [{"role": "user", "content": "a", "tool_calls": 1}]}, "body.messages[0].tool_calls", "a list"),
    (CHAT, {"max_tokens": -5}, "body.max_tokens", "a whole number of at least 1, not -5"),
    (CHAT, {"max_tokens": 0}, "body.max_tokens", "at least 1, not 0"),
    (CHAT, {"max_tokens": "60"}, "body.max_tokens", "not '60'"),
    (CHAT, {"max_tokens": 1.5}, "body.max_tokens", "not 1.5"),
    (CHAT, {"max_tokens": -3.0}, "body.max_tokens", "not -3.0"),
    (CHAT, {"max_tokens": True}, "body.max_tokens", "not True"),
    (CHAT, {"max_completion_tokens": -1}, "body.max_completion_tokens", "at least 1"),
    (CHAT, {"temperature": -0.1}, "body.temperature", "a number of at least 0"),
    (CHAT, {"temperature": "hot"}, "body.temperature", "not 'hot'"),
    (CHAT, {"top_p": 1.5}, "body.top_p", "a number from 0 to 1"),
    (CHAT, {"n": 0}, "body.n", "at least 1"),
    (CHAT, {"seed": "x"}, "body.seed", "a whole number"),
    (CHAT, {"stop": 5}, "body.stop", "a text or a list of texts"),
    (CHAT, {"stop": ["a", 5]}, "body.stop[1]", "entry 1 is not"),
    (CHAT, {"frequency_penalty": 3}, "body.frequency_penalty", "from -2 to 2"),
    (CHAT, {"presence_penalty": -3}, "body.presence_penalty", "from -2 to 2"),
    (CHAT, {"logit_bias": [1]}, "body.logit_bias", "an object of numbers"),
    (CHAT, {"logprobs": 5}, "body.logprobs", "true or false"),
    (CHAT, {"top_logprobs": "5"}, "body.top_logprobs", "a whole number"),
    (CHAT, {"response_format": "json"}, "body.response_format", 'an object with a "type"'),
    (CHAT, {"response_format": {}}, "body.response_format", 'an object with a "type"'),
    (CHAT, {"tools": [{"name": "x"}]}, "body.tools[0]", "entry 0 is not"),
    (CHAT, {"tool_choice": 5}, "body.tool_choice", "a text or an object"),
    (CHAT, {"parallel_tool_calls": "no"}, "body.parallel_tool_calls", "true or false"),
    (CHAT, {"user": 5}, "body.user", "a text"),
    (COMPLETIONS, {"prompt": ...}, "body", "body has no prompt"),
    (COMPLETIONS, {"prompt": {"text": "hi"}}, "body.prompt", "a text, or a list of texts or tokens"),
    (COMPLETIONS, {"prompt": [1.5]}, "body.prompt[0]", "entry 0 is not"),
    (COMPLETIONS, {"max_tokens": -1}, "body.max_tokens", "at least 0"),
    (COMPLETIONS, {"logprobs": True}, "body.logprobs", "a whole number of at least 0"),
    (COMPLETIONS, {"echo": "yes"}, "body.echo", "true or false"),
    (EMBEDDINGS, {"input": ...}, "body", "body has no input"),
    (EMBEDDINGS, {"input": None}, "body", "body has no input"),
    (EMBEDDINGS, {"input": []}, "body.input", "that is not empty"),
    (EMBEDDINGS, {"input": 5}, "body.input", "a text, or a list"),
    (EMBEDDINGS, {"dimensions": 0}, "body.dimensions", "at least 1"),
    (EMBEDDINGS, {"encoding_format": 1}, "body.encoding_format", "a text"),
    (RERANK, {"query": ...}, "body", "body has no query"),
    (RERANK, {"documents": ...}, "body", "body has no documents"),
    (RERANK, {"documents": []}, "body.documents", "that is not empty"),
    (RERANK, {"documents": ["a", 5]}, "body.documents[1]", "entry 1 is not"),
    (RERANK, {"top_n": "3"}, "body.top_n", "a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "change", "path", "words"), MISTAKES, ids=[f"{each[0][4:]} {str(each[1])[:60]}" for each in MISTAKES]
)
def test_a_wrong_field_is_told_once_with_its_path(endpoint: str, change: dict[str, Any], path: str, words: str) -> None:
    body = {key: value for key, value in (GOOD[endpoint] | change).items() if value is not ...}

    found = judge(endpoint, body)

    assert not isinstance(found, LineFacts), "the mistake was not seen"
    assert [each[:2] for each in found] == [("invalid_body", path)]
    assert words in found[0][2]


FINE: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"temperature": 0, "top_p": 1, "n": 2, "seed": -1, "stop": ["a"], "user": "u", "logprobs": True}),
    (CHAT, {"temperature": None, "max_tokens": None, "stop": None, "tools": None, "response_format": None}),
    (CHAT, {"max_completion_tokens": 5, "max_tokens": 7.0, "logit_bias": {"5": -100}, "top_logprobs": 0}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:..."}}]}]}),
    (CHAT, {"messages": [*SAY, {"role": "assistant", "tool_calls": [{"id": "c"}]}, {"role": "tool", "content": ""}]}),
    (CHAT, {"messages": [{"role": "ipython", "content": "{}", "name": "x"}], "chat_template_kwargs": {"a": 1}}),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {}}, "tool_choice": {"type": "function"}}),
    (CHAT, {"guided_json": {"type": "object"}, "top_k": 40, "repetition_penalty": 1.1}),
    (COMPLETIONS, {"prompt": [1, 2]}),
    (COMPLETIONS, {"prompt": [[1, 2], [3]], "max_tokens": 0, "echo": True, "logprobs": 1}),
    (COMPLETIONS, {"prompt": None, "prompt_embeds": "AAAA"}),
    (EMBEDDINGS, {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 256}),
    (EMBEDDINGS, {"input": None, "messages": SAY}),
    (RERANK, {"documents": [{"text": "a"}], "top_n": 1, "truncate_prompt_tokens": -1}),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "change"), FINE, ids=[str(each[1])[:60] for each in FINE])
def test_what_an_engine_takes_is_let_through(endpoint: str, change: dict[str, Any]) -> None:
    assert isinstance(judge(endpoint, GOOD[endpoint] | change), LineFacts)


def test_several_wrong_fields_are_all_told() -> None:
    found = judge(CHAT, {"max_tokens": -5, "temperature": "warm", "n": 0})

    assert not isinstance(found, LineFacts)
    assert [path for _, path, _ in found] == ["body", "body.temperature", "body.n", "body.max_tokens"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_longer_than_the_engine_has_room_for_is_refused_and_one_that_fits_is_not(name: str) -> None:
    over = judge(CHAT, {"messages": SAY, name: 4097}, most_tokens=4096)
    fits = judge(CHAT, {"messages": SAY, name: 4096}, most_tokens=4096)

    assert over == [
        ("too_many_tokens", f"body.{name}", f"{name} is 4,097, but the engine has room for 4,096: see max_model_len")
    ]
    assert isinstance(fits, LineFacts)


def test_an_endpoint_that_is_not_known_here_takes_any_body() -> None:
    assert isinstance(judge("/v1/responses", {"input": 5, "max_tokens": "many"}), LineFacts)


def test_an_empty_endpoint_takes_the_first_and_holds_bodies_and_urls_to_it() -> None:
    checker = LineChecker(endpoint="", model="m")
    lines = [
        json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": {"model": "m"} | body}).encode()
        for url, body in ((EMBEDDINGS, {"input": "a"}), (EMBEDDINGS, {"input": 5}), (CHAT, {"input": "a"}))
    ]

    found = [checker.check(line) for line in lines]

    assert isinstance(found[0], LineFacts)
    assert [[problem.code for problem in each] for each in found[1:]] == [["invalid_body"], ["url_mismatch"]]  # type: ignore[union-attr]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type"]), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_a_refused_body_is_always_explained_and_an_explained_one_refused(endpoint: str, data: st.DataObject) -> None:
    names = st.sampled_from(find_body_kind(endpoint).names)
    body = GOOD[endpoint] | data.draw(st.dictionaries(names, VALUES, max_size=3))
    fields = {name: json.dumps(value) for name, value in body.items()}

    found = judge(endpoint, body)

    if isinstance(found, LineFacts):
        assert find_body_kind(endpoint).explain({name: _raw(text) for name, text in fields.items()}) == []
    else:
        assert all(path.startswith("body") and message for _, path, message in found)


def _raw(text: str) -> Any:
    return msgspec.Raw(text.encode())


LINE = b' {"custom_id": "\xc3\xa9", "body": {"a": [1, {"role": "x"}], "role": 2, "a": [3, {"role": 4}]}}'


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("custom_id", '"\u00e9"'),
        ("body.role", "2"),
        ("body.a[1].role", "4"),
        ("body.a[0]", "3"),
        ("body.a[9]", "[3"),
        ("body.nothing", '{"a"'),
        ("body.role.deeper", "2"),
    ],
)
def test_a_path_leads_to_the_column_of_its_value(path: str, found: str) -> None:
    column = find_column(LINE, path)

    assert LINE.decode()[column - 1 :].startswith(found)


@pytest.mark.parametrize(
    ("line", "path"), [(b"{", "a"), (b"", "a"), (b"[1", "a"), (LINE, ""), (b'{"a": {', "a.b"), (LINE, "x")]
)
def test_without_a_place_the_column_is_unknown(line: bytes, path: str) -> None:
    assert find_column(line, path) == 0


@given(st.binary(max_size=60), st.text("ab[]0.", max_size=6))
def test_no_line_crashes_the_search(line: bytes, path: str) -> None:
    assert find_column(line, path) >= 0
