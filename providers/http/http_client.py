"""The one HTTP client of all clouds: sends, waits its turn, retries by providers.http.retry, maps failures to our errors.

Each cloud's file makes one with its own CloudApi. No text of an error holds a header, a key or a request's body.
"""

from __future__ import annotations

import email.utils
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import httpx

from providers.clock import Clock
from providers.http.cloud_api import CloudApi
from providers.http.rate_limit import Limiter, make_rate_limited, make_wait_s
from providers.http.reply import GarbledAnswer, Reply, clean, make_reply
from providers.http.retry import MAX_TRIES, Kind, Outcome, classify_status, decide, make_delay_s
from providers.http.version import read_version
from schemas.errors import (
    CloudError,
    RateLimited,
    SpecError,
    UnclearOutcome,
)

CREATE_DEADLINE_S = 110.0
"""Longest that one create can be under way, waits for its turn included."""

CALL_DEADLINE_S = 60.0
_MAX_WAITS = 6
_MAX_BODY = 32 * 1024 * 1024
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

NO_PARAMS: Mapping[str, str] = MappingProxyType({})

T = TypeVar("T")

# What carries the requests; tests put their own in its place.
Transport = httpx.BaseTransport


@dataclass(frozen=True, kw_only=True)
class _Call:
    operation: str
    kind: Kind
    method: str
    path: str
    params: Mapping[str, str]
    body: Any
    accept: Collection[int]
    secrets: tuple[str, ...]
    patience_s: float
    deadline: float


@dataclass(frozen=True, kw_only=True)
class _Try:
    """How one try ended; value is what the caller's parse made of the reply."""

    outcome: Outcome
    reply: Reply | None = None
    value: Any = None
    cause: Exception | None = None


class _AnswerLost(Exception):
    """The answer did not come whole in time."""


class HttpClient:
    """Sends requests of one account to one API. Thread-safe. Every connection is new: a kept one may be closed by the
    other side at the moment a create is sent, and would make its outcome unclear for nothing."""

    def __init__(
        self,
        api: CloudApi,
        *,
        limiter: Limiter,
        clock: Clock,
        request_timeout_s: float = 60.0,
        transport: Transport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.api = api
        self._limiter = limiter
        self._clock = clock
        self._request_timeout_s = request_timeout_s
        self._jitter = jitter
        self._http = _open_http(api, transport)
        self.server_time: float | None = None

    def call(
        self,
        operation: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        parse: Callable[[Reply], T],
        params: Mapping[str, str] = NO_PARAMS,
        body: Any = None,
        accept: Collection[int] = (),
        secrets: tuple[str, ...] = (),
        patience_s: float = CALL_DEADLINE_S,
        on_turn: Callable[[], None] = lambda: None,
    ) -> T:
        """Send one request, repeated only as providers.http.retry allows, and return what parse makes of the answer.

        accept: further statuses that are an answer and go to parse. parse raises GarbledAnswer for a body that does not
        say what it must. patience_s: longest wait for our turn; beyond it RateLimited, and nothing is sent. on_turn is
        called before every sending.
        Raises UnclearOutcome only for a create; every other error means that nothing was made.
        """
        seconds = CREATE_DEADLINE_S if kind == "create" else CALL_DEADLINE_S
        call = _Call(
            operation=operation,
            kind=kind,
            method=method,
            path=path,
            params=params,
            body=body,
            accept=accept,
            secrets=(self.api.key.reveal(), *secrets),
            patience_s=patience_s,
            deadline=self._clock.monotonic() + seconds,
        )
        failed_tries = waits = 0
        attempt: _Try | None = None
        while True:
            self._wait_for_turn(call, attempt)
            on_turn()
            attempt = self._try(call, parse)
            verdict = decide(attempt.outcome, kind)
            if verdict == "accept":
                value: T = attempt.value
                return value
            if verdict == "wait" and attempt.reply is not None:
                waits += 1
                self._hold(call, attempt.reply, waits)
            elif verdict == "retry" and failed_tries + 1 < MAX_TRIES:
                failed_tries += 1
                self._pause(call, attempt, make_delay_s(failed_tries, self._jitter()))
            else:
                self._raise(call, attempt)

    def read_lines(self, operation: str, path: str, params: Mapping[str, str], *, idle_s: float) -> list[str]:
        """What an event stream sends until it pauses for idle_s seconds or 4 * idle_s are over; [] for a 404."""
        deadline = self._clock.monotonic() + 4 * idle_s
        timeout = httpx.Timeout(10.0, read=idle_s)
        headers = {"Accept": "text/event-stream"}
        body = bytearray()
        status = 0
        try:
            with self._http.stream(
                "GET", self.api.base_url + path, params=params, headers=headers, timeout=timeout
            ) as response:
                status = response.status_code
                for chunk in response.iter_bytes():
                    body += chunk
                    if self._clock.monotonic() > deadline or len(body) > _MAX_BODY:
                        break
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            if status == 0:
                raise self._make_failure(operation, "read", _Try(outcome="not_sent", cause=error), ()) from error
        if status == 404:
            return []
        if status != 200:
            raise self.api.explain(make_reply(status, {}, bytes(body)), operation, "read")
        return body.decode("utf-8", "replace").splitlines()

    def _wait_for_turn(self, call: _Call, last: _Try | None) -> None:
        """When there is no turn for another try, what the last one ended with is the better error."""
        left_s = max(0.0, call.deadline - self._clock.monotonic())
        try:
            wait_s = self._limiter.reserve(call.operation, patience_s=min(call.patience_s, left_s))
        except RateLimited:
            if last is not None and last.outcome != "rate_limited":
                self._raise(call, last)
            raise
        if wait_s > 0:
            self._clock.sleep(wait_s)

    def _hold(self, call: _Call, reply: Reply, waits: int) -> None:
        """After a 429: nobody sends for a while, and we no longer than our deadline."""
        wait_s = make_wait_s(reply, tries=waits, default_s=self.api.default_wait_s, wall=self._clock.now())
        self._limiter.hold(wait_s)
        if waits >= _MAX_WAITS:
            raise make_rate_limited(call.operation, wait_s)

    def _pause(self, call: _Call, attempt: _Try, delay_s: float) -> None:
        if self._clock.monotonic() + delay_s >= call.deadline:
            self._raise(call, attempt)
        self._clock.sleep(delay_s)

    def _try(self, call: _Call, parse: Callable[[Reply], Any]) -> _Try:
        try:
            reply = self._exchange(call)
        except _NOT_SENT as error:
            return _Try(outcome="not_sent", cause=error)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, _AnswerLost) as error:
            return _Try(outcome="lost", cause=error)
        self._limiter.note(reply)
        outcome = "answered" if reply.status in call.accept else classify_status(reply.status)
        if outcome != "answered":
            return _Try(outcome=outcome, reply=reply)
        try:
            return _Try(outcome="answered", reply=reply, value=parse(reply))
        except GarbledAnswer as error:
            return _Try(outcome="garbled", reply=reply, cause=error)

    def _exchange(self, call: _Call) -> Reply:
        left_s = max(1.0, call.deadline - self._clock.monotonic())
        read_s = min(self._request_timeout_s, left_s)
        timeout = httpx.Timeout(min(10.0, read_s), read=read_s, write=min(30.0, read_s))
        with self._http.stream(
            call.method, self.api.base_url + call.path, params=call.params, json=call.body, timeout=timeout
        ) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_BODY:
                    raise _AnswerLost(f"the answer is longer than {_MAX_BODY // 1024**2} MiB")
                if self._clock.monotonic() > call.deadline:
                    raise _AnswerLost("the answer did not end in time")
            headers = {name.lower(): value for name, value in response.headers.items()}
            self.server_time = read_date(headers.get("date", "")) or self.server_time
            return make_reply(response.status_code, headers, bytes(body))

    def _raise(self, call: _Call, attempt: _Try) -> NoReturn:
        if attempt.outcome == "refused" and attempt.reply is not None:
            raise self.api.explain(attempt.reply, call.operation, call.kind, secrets=call.secrets)
        raise self._make_failure(call.operation, call.kind, attempt, call.secrets) from attempt.cause

    def _make_failure(self, operation: str, kind: Kind, attempt: _Try, secrets: tuple[str, ...]) -> CloudError:
        """The error after the last try of something that was not refused: no, half or senseless answers."""
        reply = attempt.reply
        reason = _describe(attempt)
        words = clean(self.api.words(reply), secrets=secrets) if reply is not None else ""
        is_unclear = decide(attempt.outcome, kind) == "unclear"
        what = f"{self.api.name} gave no usable answer when asked to {operation} ({reason})"
        fix = f"Look at the status page of {self.api.name} and at {self.api.url_variable}; then try again."
        if is_unclear:
            what = f"the answer of {self.api.name} to the order to {operation} is lost ({reason}): it may exist or not"
            fix = "Look it up by its name before ordering again; `./inv reap` lists what was left behind."
        return (UnclearOutcome if is_unclear else CloudError)(
            what,
            where=self.api.name,
            fix=fix,
            operation=operation,
            status=reply.status if reply is not None else 0,
            request_id=reply.request_id if reply is not None else "",
            detail=words,
        )


def read_date(header: str) -> float | None:
    """An HTTP date as seconds since 1970, None for anything else."""
    try:
        return email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _open_http(api: CloudApi, transport: Transport | None) -> httpx.Client:
    """The connections; raises SpecError when the environment names a proxy or certificates that cannot be used."""
    try:
        return httpx.Client(
            headers={
                "Authorization": f"Bearer {api.key.reveal()}",
                "User-Agent": f"leasehold/{read_version()}",
                "Accept": "application/json",
            },
            limits=httpx.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=not api.is_loopback,
            transport=transport,
        )
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise SpecError(
            f"the network settings of this environment cannot be used: {clean(str(error), at_most=160)}",
            where="HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE",
            fix="Correct or unset these variables; SOCKS proxies need the package socksio.",
        ) from error


def _describe(attempt: _Try) -> str:
    if attempt.cause is not None:
        words = clean(str(attempt.cause), at_most=160)
        name = "" if isinstance(attempt.cause, GarbledAnswer | _AnswerLost) else type(attempt.cause).__name__
        return ": ".join(part for part in (name, words) if part)
    return f"HTTP {attempt.reply.status}" if attempt.reply is not None else attempt.outcome
