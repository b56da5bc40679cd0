"""The one retry rule of all clouds, as a table: what to do after an outcome of a read, a delete or a create.

Pure; the HTTP client asks it after every try. A create is sent again only when it is certain that nothing was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Kind = Literal["read", "delete", "create"]
"""read: changes nothing; delete: may be repeated, "gone" is success; create: makes something that costs or lasts."""

Outcome = Literal["answered", "not_sent", "lost", "garbled", "server_error", "rate_limited", "refused"]
"""not_sent: no connection; lost: sent, then no (whole) answer; garbled: a success whose body makes no sense."""

Verdict = Literal["accept", "retry", "wait", "fail", "unclear"]
"""wait: send again when the cloud allows it; unclear: it may or may not exist, look before anything else."""

RULES: Mapping[Outcome, Mapping[Kind, Verdict]] = {
    "answered": {"read": "accept", "delete": "accept", "create": "accept"},
    "not_sent": {"read": "retry", "delete": "retry", "create": "retry"},
    "lost": {"read": "retry", "delete": "retry", "create": "unclear"},
    "garbled": {"read": "retry", "delete": "retry", "create": "unclear"},
    "server_error": {"read": "retry", "delete": "retry", "create": "unclear"},
    "rate_limited": {"read": "wait", "delete": "wait", "create": "wait"},
    "refused": {"read": "fail", "delete": "fail", "create": "fail"},
}

MAX_TRIES = 4
_FIRST_DELAY_S = 0.5
_LAST_DELAY_S = 8.0


def decide(outcome: Outcome, kind: Kind) -> Verdict:
    """What to do after this outcome."""
    return RULES[outcome][kind]


def classify_status(status: int) -> Outcome:
    """The outcome that an HTTP status stands for; a redirect is refused, since it is never followed with a key."""
    if 200 <= status < 300:
        return "answered"
    if status == 429:
        return "rate_limited"
    if status == 408 or status < 200:
        return "lost"
    return "server_error" if status >= 500 else "refused"


def make_delay_s(tries: int, jitter: float) -> float:
    """Seconds before the next try after `tries` tries; jitter in [0, 1) spreads clients apart."""
    delay = min(_FIRST_DELAY_S * 2.0 ** (tries - 1), _LAST_DELAY_S)
    return delay * (0.75 + 0.5 * jitter)
