"""One line of an OpenAI batch file: read it fast, or say exactly what is wrong. Called by batch_input and the sender."""

from __future__ import annotations

from typing import Any

import msgspec


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
    """One thing wrong in one line, with OpenAI's word for it."""

    code: str
    message: str
    path: str = ""
    fix: str = ""


class _Line(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_request = msgspec.json.Decoder(RequestLine).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
MAX_LINE_BYTES = 256 * 1024 * 1024
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_request(line: bytes) -> RequestLine:
    """A line that was checked before, as pass-through bytes; raises msgspec.DecodeError if it is no longer one."""
    return _decode_request(line)


def read_max_tokens(body: bytes | msgspec.Raw) -> int:
    """max_completion_tokens or max_tokens of a checked body, -1 where it has neither."""
    return _pick_max_tokens(_decode_body(body))


class LineChecker:
    """Checks lines against one endpoint and one model (an empty model accepts the first one seen, then only that)."""

    def __init__(self, *, endpoint: str, model: str) -> None:
        self.endpoint = endpoint
        self.model = model

    def check(self, line: bytes) -> LineFacts | tuple[LineProblem, ...]:
        """The facts of a good line, or every problem of a bad one."""
        try:
            parsed = _decode_line(line)
            body = _decode_body(parsed.body)
            if not line.isascii():
                line.decode()
        except _UNREADABLE:
            return self._explain(line) or (_invalid_json("a key is there twice, with values of different types"),)
        good = parsed.custom_id and parsed.method == "POST" and parsed.url == self.endpoint
        if not good or body.model != self.model or body.stream:
            problems = self._explain(line)
            if problems:
                return problems
        return LineFacts(parsed.custom_id, parsed.body, _pick_max_tokens(body))

    def _explain(self, line: bytes) -> tuple[LineProblem, ...]:
        """The slow, exact reading: only for lines that the fast one refused."""
        if len(line) >= MAX_LINE_BYTES:
            return (_invalid_json(f"the line is longer than {MAX_LINE_BYTES // 1024**2} MB"),)
        try:
            line.decode()
            fields = _decode_fields(line)
        except UnicodeDecodeError as error:
            return (_invalid_json(f"the line is not UTF-8: {error.reason} at byte {error.start}"),)
        except RecursionError:
            return (_invalid_json("the line is nested too deeply"),)
        except msgspec.ValidationError:
            return (_invalid_json("the line is not a JSON object"),)
        except msgspec.DecodeError as error:
            return (_invalid_json(f"the line is not valid JSON: {error}"),)
        problems = [*_check_custom_id(fields), *self._check_target(fields), *self._check_body(fields)]
        return tuple(problems)

    def _check_target(self, fields: dict[str, msgspec.Raw]) -> list[LineProblem]:
        problems = []
        method, url = _value(fields.get("method")), _value(fields.get("url"))
        if method != "POST":
            text = f"method must be POST, not {_show(method)}" if "method" in fields else "method is missing"
            problems.append(
                LineProblem(code="invalid_method", message=text, path="method", fix='Write "method": "POST".')
            )
        if url != self.endpoint:
            text = f"url is {_show(url)}" if "url" in fields else "url is missing"
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
            return [LineProblem(code="invalid_body", message=text, path="body")]
        try:
            body = _decode_body(raw)
        except _UNREADABLE as error:
            return [LineProblem(code="invalid_body", message=f"body cannot be read: {error}", path="body")]
        return [*self._check_model(body.model), *_check_stream(body.stream)]

    def _check_model(self, model: Any) -> list[LineProblem]:
        if not self.model and isinstance(model, str) and model:
            self.model = model
        if model == self.model and model:
            return []
        text = "body has no model" if model is None else f"model is {_show(model)}"
        wanted = f", but this batch is served by {self.model}" if self.model else ""
        fix = f'Write "model": "{self.model}" in the body.' if self.model else "Name the model in every body."
        return [LineProblem(code="model_mismatch", message=text + wanted, path="body.model", fix=fix)]


def _check_custom_id(fields: dict[str, msgspec.Raw]) -> list[LineProblem]:
    if "custom_id" not in fields:
        return [LineProblem(code="missing_custom_id", message="custom_id is missing", path="custom_id")]
    value = _value(fields["custom_id"])
    if value == "":
        return [LineProblem(code="empty_custom_id", message="custom_id is empty", path="custom_id")]
    if not isinstance(value, str):
        text = f"custom_id must be a string, not {_show(value)}"
        return [LineProblem(code="missing_custom_id", message=text, path="custom_id", fix="Put it in quotes.")]
    return []


def _check_stream(stream: Any) -> list[LineProblem]:
    if not stream:
        return []
    text = "body asks for a stream; a batch returns whole answers"
    return [LineProblem(code="stream_not_supported", message=text, path="body.stream", fix='Remove "stream".')]


def _pick_max_tokens(body: _Body) -> int:
    for value in (body.max_completion_tokens, body.max_tokens):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return -1


def _invalid_json(message: str) -> LineProblem:
    return LineProblem(code="invalid_json_line", message=message)


def _value(raw: msgspec.Raw | None) -> Any:
    """A field's value for a message; what cannot be read is shown as its bytes."""
    if raw is None:
        return None
    try:
        return _decode_any(raw)
    except _UNREADABLE:
        return bytes(raw)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
