"""The one HTTP client: what is sent, what is sent again, and what becomes of every failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.http.cloud_api import CloudApi
from providers.http.http_client import HttpClient
from providers.http.rate_limit import HeaderLimiter
from providers.http.reply import GarbledAnswer, Reply, get, require_list
from providers.http.retry import Kind
from providers.http.secret import Secret
from providers.http.version import read_version
from schemas.errors import (
    CloudError,
    CredentialError,
    LeaseholdError,
    RateLimited,
    RequestRefused,
    RetiredApi,
    SpecError,
    UnclearOutcome,
)
from tests.providers.fake_api import FakeClock, reply

KEY = "rpa_SECRETSECRETSECRET"
URL = "https://api.example.test/v2"


class Server:
    """Answers one by one, the last one for ever; keeps every request."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def make_client(server: Any, clock: FakeClock | None = None) -> HttpClient:
    clock = clock or FakeClock()
    api = CloudApi(
        name="Example",
        base_url=URL,
        is_loopback=False,
        key=Secret(KEY),
        key_variable="EXAMPLE_API_KEY",
        url_variable="EXAMPLE_BASE_URL",
        least_right="read and write for machines",
        words=lambda answer: str(get(answer.data, "detail") or answer.text),
        default_wait_s=10,
    )
    limiter = HeaderLimiter(clock.monotonic)
    transport = None if server is None else httpx.MockTransport(server)
    return HttpClient(api, limiter=limiter, clock=clock, transport=transport, jitter=lambda: 0.5)


def call(client: HttpClient, kind: Kind = "read", **options: Any) -> Any:
    method = {"read": "GET", "delete": "DELETE", "create": "POST"}[kind]
    return client.call("do it", kind, method, "/things", **({"parse": lambda answer: answer.data} | options))


def test_every_request_bears_the_key_and_our_own_user_agent() -> None:
    server = Server(reply(200, {"a": 1}))

    assert call(make_client(server), params={"x": "1,2"}) == {"a": 1}
    headers = server.requests[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["user-agent"] == f"leasehold/{read_version()}"
    assert str(server.requests[0].url) == f"{URL}/things?x=1%2C2"


FAULTS: list[tuple[str, httpx.Response | Exception]] = [
    ("not sent", httpx.ConnectError("refused")),
    ("connect timeout", httpx.ConnectTimeout("slow")),
    ("read timeout", httpx.ReadTimeout("slow")),
    ("cut", httpx.RemoteProtocolError("peer closed")),
    ("write error", httpx.WriteError("broken pipe")),
    ("500", reply(500, {"detail": "upstream"})),
    ("502 html", httpx.Response(502, content=b"<html><h1>Bad gateway</h1></html>")),
    ("408", reply(408)),
    ("bad gzip", httpx.Response(200, headers={"content-encoding": "x-nothing"}, content=b"\x1f\x8b")),
]


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=[name for name, _ in FAULTS])
@pytest.mark.parametrize("kind", ["read", "delete"])
def test_reads_and_deletes_are_sent_again_until_they_work(
    kind: Kind, name: str, fault: httpx.Response | Exception
) -> None:
    server = Server(fault, fault, reply(200, {"things": []}))

    assert call(make_client(server), kind, parse=lambda answer: require_list(answer.data, "things")) == []
    assert len(server.requests) == 3


@pytest.mark.parametrize(("name", "fault"), FAULTS[:8], ids=[name for name, _ in FAULTS[:8]])
def test_a_read_that_never_works_fails_after_four_tries(name: str, fault: httpx.Response | Exception) -> None:
    server = Server(fault)

    with pytest.raises(CloudError) as caught:
        call(make_client(server))
    assert len(server.requests) == 4
    assert "Example gave no usable answer when asked to do it" in str(caught.value)
    assert caught.value.operation == "do it"
    assert caught.value.fix


@pytest.mark.parametrize(("name", "fault"), FAULTS[2:8], ids=[name for name, _ in FAULTS[2:8]])
def test_a_create_whose_answer_is_lost_is_unclear_and_not_sent_again(
    name: str, fault: httpx.Response | Exception
) -> None:
    server = Server(fault, reply(201, {"id": "second"}))

    with pytest.raises(UnclearOutcome) as caught:
        call(make_client(server), "create", body={"name": "x"})
    assert len(server.requests) == 1
    assert "may exist or not" in str(caught.value) and "by its name" in str(caught.value)


def test_a_create_that_was_never_sent_is_sent_again() -> None:
    server = Server(httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), reply(201, {"id": "x"}))

    assert call(make_client(server), "create", body={}) == {"id": "x"}
    assert len(server.requests) == 3


def test_a_create_that_cannot_be_sent_at_all_is_no_unclear_one() -> None:
    with pytest.raises(CloudError) as caught:
        call(make_client(Server(httpx.ConnectError("refused"))), "create", body={})
    assert not isinstance(caught.value, UnclearOutcome)


def test_a_created_thing_without_a_readable_id_is_unclear() -> None:
    def parse(answer: Reply) -> str:
        raise GarbledAnswer("no id")

    server = Server(httpx.Response(201, content=b"<html>"))

    with pytest.raises(UnclearOutcome, match="no id"):
        call(make_client(server), "create", body={}, parse=parse)
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["read", "delete", "create"])
def test_a_429_is_waited_out_as_long_as_it_says(kind: Kind) -> None:
    clock = FakeClock()
    server = Server(reply(429, {"detail": "slow down"}, retry_after="7"), reply(200, {"a": 1}))

    assert call(make_client(server, clock), kind) == {"a": 1}
    assert sum(clock.slept) == 7


@pytest.mark.parametrize("body", [b"", b"<html>banned you temporarily</html>", b'{"error": {}}', b"\xff"])
def test_a_429_of_any_shape_is_survived(body: bytes) -> None:
    clock = FakeClock()
    server = Server(httpx.Response(429, content=body), reply(200, {"a": 1}))

    assert call(make_client(server, clock)) == {"a": 1}
    assert sum(clock.slept) == 10


def test_a_wait_longer_than_the_deadline_is_an_error_that_says_when_to_come_back() -> None:
    clock = FakeClock()
    server = Server(reply(429, retry_after="4000"))

    with pytest.raises(RateLimited) as caught:
        call(make_client(server, clock))
    assert caught.value.retry_after_s == 4000
    assert sum(clock.slept) < 120


def test_a_create_does_not_wait_longer_for_its_turn_than_its_caller_may() -> None:
    clock = FakeClock()
    server = Server(reply(429, retry_after="20"))

    with pytest.raises(RateLimited) as caught:
        call(make_client(server, clock), "create", body={}, patience_s=3)
    assert caught.value.retry_after_s == 20
    assert len(server.requests) == 1 and not clock.slept


def test_waits_end_even_when_the_cloud_only_ever_says_429() -> None:
    clock = FakeClock()
    server = Server(reply(429, retry_after="0"))

    with pytest.raises(RateLimited):
        call(make_client(server, clock))
    assert len(server.requests) == 6


REFUSALS: list[tuple[httpx.Response, type[LeaseholdError], str]] = [
    (reply(400, {"detail": "bad"}), RequestRefused, "HTTP 400"),
    (reply(401, {"detail": "missing bearer token"}), CredentialError, "EXAMPLE_API_KEY"),
    (reply(401), CredentialError, "read and write for machines"),
    (reply(401, {"error": {}}), CredentialError, "HTTP 401"),
    (reply(403, {"detail": "access denied"}), CredentialError, "does not allow this key to do it"),
    (httpx.Response(403, content=b"error code: 1010"), CloudError, "network edge"),
    (reply(404, {"detail": "resource not found"}), RequestRefused, "resource not found"),
    (reply(405), RequestRefused, "HTTP 405"),
    (reply(410, {"detail": "gone"}), RetiredApi, "EXAMPLE_BASE_URL"),
    (reply(301, location="https://elsewhere.test"), CloudError, "EXAMPLE_BASE_URL"),
]


@pytest.mark.parametrize(("answer", "kind", "words"), REFUSALS)
def test_a_refusal_becomes_its_own_error_at_once(
    answer: httpx.Response, kind: type[LeaseholdError], words: str
) -> None:
    server = Server(answer)

    with pytest.raises(kind) as caught:
        call(make_client(server))
    assert words in str(caught.value)
    assert type(caught.value) is kind
    assert len(server.requests) == 1


def test_an_error_names_operation_status_and_request_id() -> None:
    server = Server(reply(400, {"detail": "bad"}, x_request_id="req-7"))

    with pytest.raises(RequestRefused) as caught:
        call(make_client(server))
    assert (caught.value.operation, caught.value.status, caught.value.request_id) == ("do it", 400, "req-7")
    assert caught.value.detail == "bad"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 429, 500])
def test_no_error_holds_the_key_or_what_was_called_secret(status: int) -> None:
    echo = {"detail": f"Bearer {KEY} and HOSTKEY and -----BEGIN OPENSSH PRIVATE KEY-----\nabc"}

    with pytest.raises(LeaseholdError) as caught:
        call(make_client(Server(reply(status, echo, retry_after="999"))), "create", body={}, secrets=("HOSTKEY",))
    error = caught.value
    shown = f"{error} {error!r} {vars(error)} {error.__cause__}"
    assert KEY not in shown and "HOSTKEY" not in shown and "OPENSSH" not in shown


def test_a_key_never_follows_a_redirect() -> None:
    server = Server(httpx.Response(302, headers={"location": "https://evil.test/"}))

    with pytest.raises(CloudError):
        call(make_client(server))
    assert [request.url.host for request in server.requests] == ["api.example.test"]


def test_a_status_that_the_caller_accepts_is_an_answer() -> None:
    assert call(make_client(Server(reply(404))), accept={404}, parse=lambda answer: answer.status) == 404


def test_a_body_without_end_is_cut_off_at_the_deadline() -> None:
    clock = FakeClock()

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                clock.moment += 5
                yield b" "

    client = make_client(lambda _request: httpx.Response(200, stream=Drip()), clock)

    with pytest.raises(CloudError, match="did not end in time"):
        call(client)


def test_an_event_stream_is_read_until_it_pauses() -> None:
    server = Server(httpx.Response(200, content=b"data: one\n\ndata: two\n\n"))

    assert make_client(server).read_lines("read", "/logs", {"tail": "5"}, idle_s=0.1) == [
        "data: one",
        "",
        "data: two",
        "",
    ]
    assert server.requests[0].headers["accept"] == "text/event-stream"


def test_an_event_stream_that_pauses_gives_what_came_before() -> None:
    class Pausing(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"data: one\n"
            raise httpx.ReadTimeout("idle")

    client = make_client(lambda _request: httpx.Response(200, stream=Pausing()))

    assert client.read_lines("read", "/logs", {}, idle_s=0.1) == ["data: one"]


def test_an_event_stream_of_something_gone_is_empty_and_one_refused_is_an_error() -> None:
    assert make_client(Server(reply(404))).read_lines("read", "/logs", {}, idle_s=0.1) == []
    with pytest.raises(CredentialError):
        make_client(Server(reply(401))).read_lines("read", "/logs", {}, idle_s=0.1)
    with pytest.raises(CloudError):
        make_client(Server(httpx.ConnectError("no"))).read_lines("read", "/logs", {}, idle_s=0.1)


def test_an_emulator_on_this_computer_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    client = make_client(Server(reply(200, {})))
    api = CloudApi(**{**vars(client.api), "base_url": "http://127.0.0.1:9", "is_loopback": True})
    loopback = HttpClient(api, limiter=HeaderLimiter(lambda: 0.0), clock=FakeClock())

    assert not any(loopback._http._mounts.values())


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "gopher://x", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)

    with pytest.raises(SpecError, match="ALL_PROXY"):
        make_client(None)


def test_the_client_is_made_without_touching_the_network(tmp_path: Path) -> None:
    server = Server(reply(200))
    make_client(server)

    assert server.requests == []
