"""Public ports of emulated machines: taken when the machine is made, so that nothing else on this computer gets them."""

from __future__ import annotations

import socket


class PublicPort:
    """A TCP port of 127.0.0.1 that is held by a bound socket which never listens.

    Connections are refused until the machine's own server binds it too, which SO_REUSEADDR on both sides allows.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()
