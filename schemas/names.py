"""Names that survive our own death: a machine's name alone says whose it is and when it must be gone. Used by every cloud."""

from __future__ import annotations

import re
import string

import msgspec

MAX_NAME_LENGTH = 60
PREFIX = "lh-"
TOKEN_LENGTH = 12
_DIGITS = string.digits + string.ascii_lowercase
# Written in one way only: what was made by others and happens to look alike must not be taken for ours.
_NUMBER, _EXPIRY = r"(0|[1-9][0-9]{0,3})", r"([1-9a-z][0-9a-z]{4,7})"
_NAME = re.compile(rf"lh-([a-z0-9]{{12}})-{_NUMBER}x{_NUMBER}-{_EXPIRY}")
_KEY_NAME = re.compile(rf"lh-([a-z0-9]{{12}})-key-{_EXPIRY}")


class MachineName(msgspec.Struct, frozen=True, kw_only=True):
    """What a name says: the lease's token, the machine's index, the try that made it, expiry in seconds since 1970."""

    token: str
    index: int
    attempt: int
    expires_at: int


class KeyName(msgspec.Struct, frozen=True, kw_only=True):
    """What the name of a per-job SSH key in an account says."""

    token: str
    expires_at: int


def make_machine_name(*, token: str, index: int, attempt: int, expires_at: int) -> str:
    """`lh-<token>-<index>x<attempt>-<expiry in base 36>`, at most 60 characters of [a-z0-9-]."""
    name = f"{PREFIX}{token}-{index}x{attempt}-{to_base36(expires_at)}"
    if _NAME.fullmatch(name) is None or len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"not a machine name: {name!r}")
    return name


def parse_machine_name(name: str) -> MachineName | None:
    """Read a name; None for every name that is not exactly ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    token, index, attempt, expiry = match.groups()
    return MachineName(token=token, index=int(index), attempt=int(attempt), expires_at=int(expiry, 36))


def make_key_name(*, token: str, expires_at: int) -> str:
    """The name of a per-job SSH key registered in an account."""
    return f"{PREFIX}{token}-key-{to_base36(expires_at)}"


def parse_key_name(name: str) -> KeyName | None:
    match = _KEY_NAME.fullmatch(name)
    return None if match is None else KeyName(token=match[1], expires_at=int(match[2], 36))


def make_prefix(token: str) -> str:
    """What every name of one lease starts with."""
    return f"{PREFIX}{token}-"


def to_base36(number: int) -> str:
    """A non-negative integer in lower-case base 36."""
    if number < 0:
        raise ValueError("a negative number has no base-36 name")
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if number == 0:
            return digits
