"""What an answer, or its absence, means for the request: done, try again, or try again for free. Pure; called by the sender."""

from __future__ import annotations

import email.utils
import enum
import time

from runtime.batch.tokens import Tokens, read_tokens

MAX_RETRY_AFTER_S = 600.0
_RETRIED_STATUSES = frozenset({408, 409, 425})
_BUSY_STATUSES = frozenset({429, 503})


class Outcome(enum.Enum):
    """ANSWERED and REFUSED are final. RETRY counts as an attempt; BUSY does not: the request was not worked on."""

    ANSWERED = "answered"
    REFUSED = "refused"
    RETRY = "retry"
    BUSY = "busy"


def classify_answer(status: int, body: bytes) -> tuple[Outcome, Tokens | None]:
    """The outcome of a whole HTTP answer, and the tokens it tells where it is a good one.

    A 2xx whose body is no JSON is a broken answer (a proxy's page, a crash in mid-write): worth another try.
    """
    if 200 <= status < 300:
        tokens = read_tokens(body)
        return (Outcome.RETRY, None) if tokens is None else (Outcome.ANSWERED, tokens)
    if status in _BUSY_STATUSES:
        return Outcome.BUSY, None
    if status >= 500 or status in _RETRIED_STATUSES:
        return Outcome.RETRY, None
    return Outcome.REFUSED, None


def read_retry_after(value: str | None, *, now: float | None = None) -> float:
    """Seconds that a Retry-After header asks for (a number or an HTTP date), 0 when it says nothing we understand."""
    if not value:
        return 0.0
    try:
        wait_s = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        wait_s = moment.timestamp() - (time.time() if now is None else now)
    return min(MAX_RETRY_AFTER_S, max(0.0, wait_s)) if wait_s == wait_s else 0.0


def describe_alike(status: int, body: bytes) -> str:
    """A refusal without what differs from line to line (numbers, quoted text), to see whether many fail for one reason."""
    text = body[:400].decode("utf-8", "replace")
    return f"{status} " + "".join("#" if letter.isdigit() else letter for letter in text)
