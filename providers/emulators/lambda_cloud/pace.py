"""Lambda's undocumented 429: one request a second, one launch in 12 seconds. Called for every request with a good key."""

from __future__ import annotations

from providers.emulators.call import Answer, Refused
from providers.emulators.clock import CloudClock
from providers.emulators.faults import Faults
from providers.emulators.lambda_cloud.error import fail

# A client that keeps the pace exactly may be a little early by the time its request arrives.
_TOLERANCE = 0.95
_BODIES = {
    "html": (b"<html><body><h1>429 Too Many Requests</h1></body></html>", "text/html"),
    "text": (b"The owner of this website has banned you temporarily from accessing this website.", "text/plain"),
    "empty": (b"", "text/plain"),
}


class Pace:
    """A bucket of requests, and the time of the last launch; both count on the cloud's clock."""

    def __init__(self, clock: CloudClock, faults: Faults) -> None:
        self._clock = clock
        self._faults = faults
        self._tokens = float("inf")
        self._filled_at = clock.now()
        self._launched_at = float("-inf")

    def check(self, subject: str, *, is_launch: bool) -> None:
        """Count one request; raises the 429."""
        if self._faults.take("rate_limit_now", subject):
            raise self._make_refusal("rate_limit_now")
        self._take_token()
        if is_launch:
            self._take_launch()

    def _take_token(self) -> None:
        interval_s = float(self._faults.peek("request_interval_s") or 0)
        if interval_s <= 0:
            return
        burst = float(self._faults.peek("request_burst") or 1)
        now = self._clock.now()
        self._tokens = min(burst, self._tokens + (now - self._filled_at) / (interval_s * _TOLERANCE))
        self._filled_at = now
        if self._tokens < 1:
            raise self._make_refusal("")
        self._tokens -= 1

    def _take_launch(self) -> None:
        interval_s = float(self._faults.peek("launch_interval_s") or 0)
        now = self._clock.now()
        if now - self._launched_at < interval_s * _TOLERANCE:
            raise self._make_refusal("")
        self._launched_at = now

    def _make_refusal(self, fault: str) -> Refused:
        """The body of a 429 is unknown, so it is one of four."""
        seconds = self._faults.peek("rate_limit_retry_after")
        headers = {} if seconds is None else {"Retry-After": str(int(seconds))}
        kind = self._faults.peek("rate_limit_body")
        if kind in _BODIES:
            raw, content_type = _BODIES[kind]
            answer = Answer(status=429, raw=raw, content_type=content_type, headers=headers)
        else:
            body = fail("global/rate-limited").answer.body
            answer = Answer(status=429, body=body, headers=headers)
        # The document has no 429, so it cannot be held to it.
        return Refused(answer, fault=fault or "rate_limit", detail="rate limited")
