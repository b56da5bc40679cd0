"""One line of an OpenAI batch file: read it fast, or say exactly what is wrong. Called by batch_input and the sender."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from runtime.batch.batch_bodies import AnyBody, find_body_kind, show


class RequestLine(msgspec.Struct, gc=False):
    """What the dispatcher needs of a line; custom_id and body are the user's own bytes, never re-encoded."""

    custom_id: msgspec.Raw
    body: msgspec.Raw


class LineFacts(msgspec.Struct, gc=False):
    """A line that is in order: its id, its body as written, and max_tokens where the body has it (else -1)."""

    custom_id: str
    body: msgspec.Raw
    max_tokens: int


class LineProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong in one line, with OpenAI's word for it; column, from 1, is 0 where path must tell the place."""

    code: str
    message: str
    path: str = ""
    fix: str = ""
    column: int = 0


class _Line(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Id(msgspec.Struct, gc=False):
    custom_id: str


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_any_body = msgspec.json.Decoder(AnyBody).decode
_decode_id = msgspec.json.Decoder(_Id).decode
_decode_request = msgspec.json.Decoder(RequestLine).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
MAX_LINE_BYTES = 256 * 1024 * 1024
_ID_FIX = 'Write a text that no other line has, such as "custom_id": "request-1".'
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_request(line: bytes) -> RequestLine:
    """A line that was checked before, as pass-through bytes; raises msgspec.DecodeError if it is no longer one."""
    return _decode_request(line)


def read_custom_id(line: bytes) -> str:
    """The id of a line that may be wrong otherwise; "" where it has none that can be read."""
    try:
        return _decode_id(line).custom_id
    except _UNREADABLE:
        return ""


def read_max_tokens(body: bytes | msgspec.Raw) -> int:
    """max_completion_tokens or max_tokens of a checked body, -1 where it has neither."""
    return _pick_max_tokens(_decode_any_body(body))


class LineChecker:
    """Checks lines against one endpoint and one model; an empty one accepts the first one seen, then only that.

    most_tokens: the longest answer that the engine can give to any prompt, 0 = not known.
    """

    def __init__(self, *, endpoint: str, model: str, most_tokens: int = 0) -> None:
        self.endpoint = endpoint
        self.model = model
        self.most_tokens = most_tokens
        self._kind = find_body_kind(endpoint)

    def check(self, line: bytes) -> LineFacts | tuple[LineProblem, ...]:
        """The facts of a good line, or every problem of a bad one."""
        try:
            parsed = _decode_line(line)
            body = self._kind.decode(parsed.body)
            if not line.isascii():
                line.decode()
        except _UNREADABLE:
            return self._judge(line)
        good = parsed.custom_id and parsed.method == "POST" and parsed.url == self.endpoint
        if not good or body.model != self.model or body.stream or not self._kind.is_whole(body):
            return self._judge(line)
        max_tokens = _pick_max_tokens(body)
        if 0 < self.most_tokens < max_tokens:
            return self._judge(line)
        return LineFacts(parsed.custom_id, parsed.body, max_tokens)

    def _judge(self, line: bytes) -> LineFacts | tuple[LineProblem, ...]:
        """The slow, exact reading: only for lines that the fast one refused."""
        problems = self._explain(line)
        if problems:
            return problems
        try:
            parsed = _decode_line(line)
            return LineFacts(parsed.custom_id, parsed.body, _pick_max_tokens(_decode_any_body(parsed.body)))
        except _UNREADABLE:
            return (_invalid_json("a key is there twice, with values of different types"),)

    def _explain(self, line: bytes) -> tuple[LineProblem, ...]:
        if len(line) >= MAX_LINE_BYTES:
            return (_invalid_json(f"the line is longer than {MAX_LINE_BYTES // 1024**2} MB"),)
        try:
            line.decode()
            fields = _decode_fields(line)
        except UnicodeDecodeError as error:
            column = _count_columns(line, error.start)
            return (_invalid_json(f"the line is not UTF-8: {error.reason} at byte {error.start}", column=column),)
        except RecursionError:
            return (_invalid_json("the line is nested too deeply"),)
        except msgspec.ValidationError:
            return (_invalid_json("the line is not a JSON object"),)
        except msgspec.DecodeError as error:
            return (_invalid_json(f"the line is not valid JSON: {error}", column=_find_flaw(line, str(error))),)
        problems = [*_check_custom_id(fields), *self._check_target(fields), *self._check_body(fields)]
        return tuple(problems)

    def _check_target(self, fields: dict[str, msgspec.Raw]) -> list[LineProblem]:
        problems = []
        method, url = _value(fields.get("method")), _value(fields.get("url"))
        if not self.endpoint and isinstance(url, str) and url:
            self.endpoint, self._kind = url, find_body_kind(url)
        if method != "POST":
            text = f"method must be POST, not {show(method)}" if "method" in fields else "method is missing"
            problems.append(
                LineProblem(code="invalid_method", message=text, path="method", fix='Write "method": "POST".')
            )
        if url != self.endpoint:
            text = f"url is {show(url)}" if "url" in fields else "url is missing"
            message = f"{text}, but this batch goes to {self.endpoint}"
            problems.append(
                LineProblem(
                    code="url_mismatch",
                    message=message,
                    path="url",
                    fix=f'Write "url": "{self.endpoint}", or change the endpoint of the job.',
                )
            )
        return problems

    def _check_body(self, fields: dict[str, msgspec.Raw]) -> list[LineProblem]:
        raw = fields.get("body")
        if raw is None or not bytes(raw).startswith(b"{"):
            text = "body is missing" if raw is None else "body must be a JSON object"
            return [LineProblem(code="invalid_body", message=text, path="body", fix='Write "body": {...}.')]
        try:
            body, values = _decode_any_body(raw), _decode_fields(raw)
        except _UNREADABLE as error:
            return [LineProblem(code="invalid_body", message=f"body cannot be read: {error}", path="body")]
        problems = [*self._check_model(body.model), *_check_stream(body.stream)]
        for each in self._kind.explain(values):
            path = f"body.{each.path}" if each.path else "body"
            problems.append(LineProblem(code="invalid_body", message=each.message, path=path, fix=each.fix))
        return [*problems, *self._check_length(body)]

    def _check_length(self, body: AnyBody) -> list[LineProblem]:
        given = _pick_max_tokens(body)
        if not 0 < self.most_tokens < given:
            return []
        name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        message = f"{name} is {given:,}, but the engine has room for {self.most_tokens:,}: see max_model_len"
        fix = "Lower it, or raise max_model_len (overrides: engine_args: {{max_model_len: ...}})."
        return [LineProblem(code="too_many_tokens", message=message, path=f"body.{name}", fix=fix)]

    def _check_model(self, model: Any) -> list[LineProblem]:
        if not self.model and isinstance(model, str) and model:
            self.model = model
        if model == self.model and model:
            return []
        text = "body has no model" if model is None else f"model is {show(model)}"
        wanted = f", but this batch is served by {self.model}" if self.model else ""
        fix = f'Write "model": "{self.model}" in the body.' if self.model else "Name the model in every body."
        return [LineProblem(code="model_mismatch", message=text + wanted, path="body.model", fix=fix)]


def _check_custom_id(fields: dict[str, msgspec.Raw]) -> list[LineProblem]:
    if "custom_id" not in fields:
        return [LineProblem(code="missing_custom_id", message="custom_id is missing", path="custom_id", fix=_ID_FIX)]
    value = _value(fields["custom_id"])
    if value == "":
        return [LineProblem(code="empty_custom_id", message="custom_id is empty", path="custom_id", fix=_ID_FIX)]
    if not isinstance(value, str):
        text = f"custom_id must be a string, not {show(value)}"
        return [LineProblem(code="missing_custom_id", message=text, path="custom_id", fix="Put it in quotes.")]
    return []


def _check_stream(stream: Any) -> list[LineProblem]:
    if not stream:
        return []
    text = "body asks for a stream; a batch returns whole answers"
    return [LineProblem(code="stream_not_supported", message=text, path="body.stream", fix='Remove "stream".')]


def _pick_max_tokens(body: Any) -> int:
    for value in (body.max_completion_tokens, body.max_tokens):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return -1


def _invalid_json(message: str, *, column: int = 0) -> LineProblem:
    fix = "Write one JSON object a line."
    return LineProblem(code="invalid_json_line", message=message, fix=fix, column=column)


def _find_flaw(line: bytes, error: str) -> int:
    """The column that a JSON error names by its byte; one that names none means the end of the line."""
    found = re.search(r"\(byte (\d+)\)", error)
    byte = int(found[1]) if found else len(line.rstrip())
    return _count_columns(line, byte - 1 if "trailing characters" in error else byte)


def _count_columns(line: bytes, byte: int) -> int:
    return len(line[:byte].decode("utf-8", "replace")) + 1


def _value(raw: msgspec.Raw | None) -> Any:
    """A field's value for a message; what cannot be read is shown as its bytes."""
    if raw is None:
        return None
    try:
        return _decode_any(raw)
    except _UNREADABLE:
        return bytes(raw)
