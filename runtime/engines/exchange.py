"""What every way to an engine has in common: answers, failures, time limits, sockets. Used by the sender and both transports."""

from __future__ import annotations

import errno
import socket
from typing import Any, Literal

import msgspec

KEEP_ALIVE_S = 3.5  # vLLM closes idle connections after 5 s
CONNECT_TIMEOUT_S = 10.0
LOST_PEER_S = 60
Health = Literal["ok", "sick", "gone", "unreachable", "silent"]
NO_WAY = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT)
FailureKind = Literal["unreachable", "broken"]


class Answer(msgspec.Struct, gc=False):
    """A whole HTTP answer; request_id is the server's where it tells one, else ours."""

    status: int
    body: bytes
    request_id: str
    retry_after_s: float = 0.0


class TransportFailure(Exception):
    """No whole answer came. unreachable: nothing was sent; broken: it may have been worked on."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def make_socket(address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
    """A TCP socket that notices a vanished peer: an answer may take minutes, so silence alone proves nothing."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": 20, "TCP_KEEPALIVE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
    for name, value in (options | {"TCP_USER_TIMEOUT": LOST_PEER_S * 1000}).items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
