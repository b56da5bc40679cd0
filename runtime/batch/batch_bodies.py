"""The bodies of requests, as far as OpenAI's documents give their fields types. Called by batch_lines.

Each endpoint has a record whose decoder refuses what is wrong in one pass over the bytes; only for refused bodies each field
is looked at by itself, to say what is wrong with it. Fields without a type here are the engine's to judge.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import msgspec


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one field of a body; path starts at the body, as in `messages[0].role`."""

    path: str
    message: str
    fix: str = ""


class AnyBody(msgspec.Struct, gc=False):
    """What every body may have, of any type; the whole check for endpoints that are not known here."""

    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None


_Whole = Annotated[int, msgspec.Meta(ge=0)] | None
_Positive = Annotated[int, msgspec.Meta(ge=1)] | None
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)] | None
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)] | None
_Heat = Annotated[float, msgspec.Meta(ge=0)] | None
_Stop = str | list[str] | None


class _Object(msgspec.Struct, gc=False):
    """Any JSON object; what it holds is passed over."""


class _Typed(msgspec.Struct, gc=False):
    type: str


class _Message(msgspec.Struct, gc=False):
    role: str
    content: str | list[_Typed] | None = None
    tool_calls: list[_Object] | None = None
    function_call: _Object | None = None


class _Sampling(msgspec.Struct, gc=False, kw_only=True):
    """What chats and completions share."""

    model: Any = None
    stream: Any = None
    max_completion_tokens: _Positive = None
    temperature: _Heat = None
    top_p: _Share = None
    n: _Positive = None
    seed: int | None = None
    stop: _Stop = None
    frequency_penalty: _Penalty = None
    presence_penalty: _Penalty = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None


class _Chat(_Sampling, gc=False, kw_only=True):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    max_tokens: _Positive = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: _Typed | None = None
    tools: list[_Typed] | None = None
    tool_choice: str | _Object | None = None
    parallel_tool_calls: bool | None = None


class _Completion(_Sampling, gc=False, kw_only=True):
    prompt: str | list[str | int | list[int]] | None = None
    prompt_embeds: Any = None
    max_tokens: _Whole = None
    logprobs: _Whole = None
    echo: bool | None = None
    best_of: _Positive = None
    suffix: str | None = None


class _Embedding(msgspec.Struct, gc=False, kw_only=True):
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    input: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1)] | None = None
    messages: list[_Message] | None = None
    encoding_format: str | None = None
    dimensions: _Positive = None
    user: str | None = None


class _Rerank(msgspec.Struct, gc=False, kw_only=True):
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    query: str | _Object
    documents: Annotated[list[str | _Object], msgspec.Meta(min_length=1)] | _Object
    top_n: int | None = None


_Body = AnyBody | _Chat | _Completion | _Embedding | _Rerank
_WORDS = {
    "prompt": "a text, or a list of texts or tokens",
    "input": "a text, or a list of texts or tokens that is not empty",
    "query": "a text",
    "documents": "a list of texts that is not empty",
    "max_completion_tokens": "a whole number of at least 1",
    "temperature": "a number of at least 0",
    "top_p": "a number from 0 to 1",
    "n": "a whole number of at least 1",
    "best_of": "a whole number of at least 1",
    "dimensions": "a whole number of at least 1",
    "seed": "a whole number",
    "top_logprobs": "a whole number",
    "top_n": "a whole number",
    "stop": "a text or a list of texts",
    "frequency_penalty": "a number from -2 to 2",
    "presence_penalty": "a number from -2 to 2",
    "logit_bias": "an object of numbers",
    "response_format": 'an object with a "type"',
    "tools": 'a list of objects with a "type"',
    "tool_choice": "a text or an object",
    "parallel_tool_calls": "true or false",
    "echo": "true or false",
}
_EXAMPLES = {
    "messages": '"messages": [{"role": "user", "content": "..."}]',
    "prompt": '"prompt": "..."',
    "input": '"input": "..."',
    "query": '"query": "..."',
    "documents": '"documents": ["...", "..."]',
}
_PLACE = re.compile(r" - at `\$(.*)`$")


class BodyKind:
    """How the bodies of one endpoint are checked."""

    def __init__(self, record: type[_Body], *, one_of: tuple[str, ...] = ()) -> None:
        self.decode: Callable[[msgspec.Raw | bytes], _Body] = msgspec.json.Decoder(record).decode
        self.is_whole: Callable[[Any], bool] = _CHECKS.get(record, _is_whole)
        self._one_of = one_of
        hints = get_type_hints(record, include_extras=True)
        self._required = tuple(each.name for each in msgspec.structs.fields(record) if each.required)
        self._types = {name: hint for name, hint in hints.items() if hint is not Any}

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are checked."""
        return tuple(self._types)

    def explain(self, fields: Mapping[str, msgspec.Raw]) -> list[FieldProblem]:
        """Everything wrong with the fields of a body; nothing where only a decoder of ours is too narrow."""
        problems = [_miss((name,)) for name in self._required if name not in fields]
        if self._one_of and all(_is_null(fields.get(name)) for name in self._one_of):
            problems.append(_miss(self._one_of))
        for name, hint in self._types.items():
            if name in fields:
                problems += _explain_field(name, hint, fields[name], self._word(name))
        return problems

    def _word(self, name: str) -> str:
        if name == "max_tokens":
            return f"a whole number of at least {1 if self._types[name] == _Positive else 0}"
        if name == "logprobs":
            return "true or false" if self._types[name] == (bool | None) else "a whole number of at least 0"
        return _WORDS.get(name, "a text")


def find_body_kind(endpoint: str) -> BodyKind:
    """How bodies of an endpoint are checked; of one that is not known here any body is fine."""
    return _KINDS.get(endpoint, _ANY)


def _explain_field(name: str, hint: Any, raw: msgspec.Raw, word: str) -> list[FieldProblem]:
    try:
        value = _make_decoder(hint)(raw)
    except msgspec.ValidationError as error:
        return _explain_value(name, raw, str(error), word)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [FieldProblem(path=name, message=f"{name} cannot be read: {error}")]
    if name == "messages":
        return [_explain_empty(index) for index, each in enumerate(value or ()) if not _has_content(each)]
    return []


def _explain_value(name: str, raw: msgspec.Raw, error: str, word: str) -> list[FieldProblem]:
    place = _PLACE.search(error)
    inner = place[1] if place else ""
    if name == "messages":
        return [_explain_message(inner, error)]
    found = msgspec.json.decode(raw)
    if "whole number" in word and isinstance(found, float) and found.is_integer() and found >= _least(word):
        return []  # 60.0 is a whole number to JSON and to the engines
    message = f"{name} must be {word}, not {show(found)}"
    if isinstance(found, list) and inner:
        message = f"{name} must be {word}; entry {inner.split(']')[0].lstrip('[')} is not"
    fix = "Remove the quotes." if isinstance(found, str) and _is_number(found) and "number" in word else ""
    return [FieldProblem(path=name + inner, message=message, fix=fix or f"Correct it, or remove {name}.")]


def _explain_message(inner: str, error: str) -> FieldProblem:
    """The first thing wrong in a list of messages; inner is where, as in `[0].content`."""
    path = f"messages{inner}"
    fix = f"Write {_EXAMPLES['messages']}."
    if "missing required field `role`" in error:
        return FieldProblem(path=path, message=f"{path} has no role", fix='Add "role": "user", or what it is.')
    if "missing required field `type`" in error:
        return FieldProblem(path=path, message=f"{path} has no type", fix='Write {"type": "text", "text": "..."}.')
    if not inner:
        empty = "is empty" if "length" in error else "must be a list of messages"
        return FieldProblem(path=path, message=f"messages {empty}", fix=fix)
    if re.fullmatch(r"\[\d+\]", inner):
        return FieldProblem(path=path, message=f'{path} must be an object with "role" and "content"', fix=fix)
    words = {"role": "a text", "content": "a text or a list of parts", "type": "a text"}
    last = re.sub(r"\[\d+\]$", "", inner).rsplit(".", 1)[-1]
    part = " object" if inner.endswith("]") else ""
    expected = f"an{part}" if part else words.get(last, "a list of objects")
    return FieldProblem(path=path, message=f"{path} must be {expected}", fix=fix)


def _explain_empty(index: int) -> FieldProblem:
    path = f"messages[{index}]"
    fix = "Write what is said; only an assistant that calls tools may say nothing."
    return FieldProblem(path=path, message=f"{path} has no content", fix=fix)


def _miss(names: tuple[str, ...]) -> FieldProblem:
    fix = f"Add {_EXAMPLES[names[0]]}."
    return FieldProblem(path="", message=f"body has no {names[0]}", fix=fix)


def show(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _has_content(message: _Message) -> bool:
    return message.content is not None or bool(message.tool_calls or message.function_call)


def _is_whole(_body: Any) -> bool:
    return True


def _is_whole_chat(body: _Chat) -> bool:
    for message in body.messages:  # noqa: SIM110  a million times: all() with a generator costs twice as much
        if message.content is None and not _has_content(message):
            return False
    return True


def _is_whole_completion(body: _Completion) -> bool:
    return body.prompt is not None or body.prompt_embeds is not None


def _is_whole_embedding(body: _Embedding) -> bool:
    return body.input is not None or (body.messages is not None and all(map(_has_content, body.messages)))


@functools.lru_cache(maxsize=128)
def _make_decoder(hint: Any) -> Callable[[msgspec.Raw], Any]:
    decode: Callable[[msgspec.Raw], Any] = msgspec.json.Decoder(hint).decode
    return decode


def _is_null(raw: msgspec.Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


def _least(word: str) -> float:
    found = re.search(r"at least (\d+)", word)
    return float(found[1]) if found else float("-inf")


_CHECKS: Mapping[type, Callable[[Any], bool]] = {
    _Chat: _is_whole_chat,
    _Completion: _is_whole_completion,
    _Embedding: _is_whole_embedding,
}
_ANY = BodyKind(AnyBody)
_KINDS = {
    "/v1/chat/completions": BodyKind(_Chat),
    "/v1/completions": BodyKind(_Completion, one_of=("prompt", "prompt_embeds")),
    "/v1/embeddings": BodyKind(_Embedding, one_of=("input", "messages")),
    "/v1/rerank": BodyKind(_Rerank),
}
