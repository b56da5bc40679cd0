"""Notices that every request fails for one reason (wrong model, wrong template), before all of them have. Fed by the sender."""

from __future__ import annotations

import asyncio

from runtime.engines.outcome import describe_alike

FAILURES = 200


class EarlyStop:
    """`reason` is resolved when the first FAILURES results of the whole batch are failures that look alike."""

    def __init__(self, *, has_success: bool, limit: int = FAILURES) -> None:
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._is_watching = not has_success
        self._limit = limit
        self._seen = 0
        self._likeness = ""

    def on_answer(self) -> None:
        self._is_watching = False

    def on_failure(self, status: int, body: bytes) -> None:
        """A request has failed for good; status 0 is a failure without an answer."""
        if not self._is_watching:
            return
        likeness = describe_alike(status, body)
        if self._seen and likeness != self._likeness:
            self._is_watching = False
            return
        self._likeness = likeness
        self._seen += 1
        if self._seen >= self._limit:
            self._is_watching = False
            kind = f"status {status}" if status else "no answer"
            text = " ".join(body[:300].decode("utf-8", "replace").split())
            self.reason.set_result(f"the first {self._seen} requests all failed alike ({kind}): {text}")
