"""Lines of output.jsonl and error.jsonl: made around an answer's own bytes, and read back. Used by sender and recovery."""

from __future__ import annotations

import json

import msgspec

from runtime.batch.tokens import Tokens, is_json, read_tokens

_LINE_DIGITS = 8
_AFTER_DIGITS = b'","custom_id":'


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a line of ours says: the request it belongs to, whether it failed, the error's code or "", tokens."""

    line: int
    failed: bool
    code: str
    tokens: Tokens


class _Response(msgspec.Struct, gc=False):
    status_code: int
    body: msgspec.Raw


class _Error(msgspec.Struct, gc=False):
    code: str


class _Result(msgspec.Struct, gc=False):
    id: str
    custom_id: str
    response: _Response | None
    error: _Error | None


_decode_result = msgspec.json.Decoder(_Result).decode


class ResultWriter:
    """Makes result lines of one run; the id of each ends with its request's number, so the files alone say what is done."""

    def __init__(self, run: str) -> None:
        self.id_prefix = "batch_req_" + run
        self._head = b'{"id":' + msgspec.json.encode(self.id_prefix)[:-1]

    def make_answer(self, line: int, custom_id: bytes, *, status: int, request_id: str, body: bytes) -> bytes:
        """An engine's answer, its body byte for byte (only line breaks between JSON tokens are taken out)."""
        if b"\n" in body or b"\r" in body:
            body = body.translate(None, b"\r\n")
        return b'%b%08x","custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null}\n' % (
            self._head,
            line,
            custom_id,
            status,
            msgspec.json.encode(request_id),
            body,
        )

    def make_refusal(self, line: int, custom_id: bytes, *, status: int, request_id: str, body: bytes) -> bytes:
        """An HTTP error as OpenAI writes it: response with status and body, `error` null. Any other body becomes a string."""
        if not is_json(body):
            body = json.dumps(body.decode("utf-8", "replace")).encode()
        return self.make_answer(line, custom_id, status=status, request_id=request_id, body=body)

    def make_failure(self, line: int, custom_id: bytes, *, code: str, message: str) -> bytes:
        """A request that got no HTTP answer, or was never sent."""
        error = msgspec.json.encode({"code": code, "message": message})
        return b'%b%08x","custom_id":%b,"response":null,"error":%b}\n' % (self._head, line, custom_id, error)

    def take_over(self, data: bytes, earlier: ResultWriter, *, line: int, custom_id: bytes) -> bytes | None:
        """A line of an earlier run as request `line` of this one, all but its id byte for byte.

        None when it is not written as ours are, or has another custom_id than the request.
        """
        end = len(earlier._head) + _LINE_DIGITS
        if not data.startswith(earlier._head) or not data.startswith(_AFTER_DIGITS, end):
            return None
        is_same = data.startswith(b'%b%b,"response":' % (_AFTER_DIGITS, custom_id), end)
        if not is_same and json.loads(data)["custom_id"] != json.loads(custom_id):  # text may be escaped in other ways
            return None
        return b"%b%08x%b" % (self._head, line, data[end:])

    def read(self, data: bytes) -> ResultLine | None:
        """One line of ours, or None for anything else: torn, foreign, of another run."""
        # Ours go from brace to brace without a carriage return, which to some readers would be the end of a line.
        if not data.startswith(b"{") or not data.endswith(b"}\n") or b"\r" in data:
            return None
        try:
            result = _decode_result(data)
        except UnicodeDecodeError:
            return None
        except (msgspec.DecodeError, RecursionError):
            return self._read_leniently(data)
        code = result.error.code if result.error else None
        if result.response is None:
            return self._judge(result.id, status=None, body=b"", code=code)
        return self._judge(result.id, status=result.response.status_code, body=result.response.body, code=code)

    def _read_leniently(self, data: bytes) -> ResultLine | None:
        """An answer may hold what JSON allows and msgspec refuses (a lone surrogate escape): the standard library reads it."""
        if not is_json(data):
            return None
        try:
            plain = json.loads(data)
            response, error = plain["response"], plain["error"]
            code = error["code"] if error else None
            if not response:
                return self._judge(plain["id"], status=None, body=b"", code=code)
            body = json.dumps(response["body"]).encode()
            return self._judge(plain["id"], status=response["status_code"], body=body, code=code)
        except (KeyError, TypeError, AttributeError):
            return None

    def _judge(
        self, result_id: str, *, status: int | None, body: bytes | msgspec.Raw, code: str | None
    ) -> ResultLine | None:
        line = self._line_of(result_id)
        tokens = Tokens() if status is None else read_tokens(body)
        if line is None or tokens is None or (status is None) == (code is None):
            return None
        failed = status is None or not 200 <= status < 300
        return ResultLine(line=line, failed=failed, code=code or "", tokens=tokens)

    def _line_of(self, result_id: str) -> int | None:
        digits = result_id[len(self.id_prefix) :]
        if not result_id.startswith(self.id_prefix) or len(digits) < _LINE_DIGITS:
            return None
        try:
            return int(digits, 16)
        except ValueError:
            return None
