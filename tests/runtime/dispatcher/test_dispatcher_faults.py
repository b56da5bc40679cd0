"""What engines do wrong, and that nothing is lost, done twice, or failed where a retry would have saved it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import runtime.dispatcher.membership
import runtime.dispatcher.replica
import runtime.dispatcher.request_queue
from runtime.dispatcher.manifest import DispatchOptions
from runtime.dispatcher.replica import Link
from runtime.engines.fast_http import FastTransport
from runtime.engines.transport import Transport
from tests.runtime.conftest import Bench, Engines, make_line
from tests.runtime.stub_engine import NUMBER, StubEngine

DEFAULT_WAY = "tcp"
pytestmark = [pytest.mark.wire, pytest.mark.usefixtures("way")]
over_every_way = pytest.mark.parametrize("way", ["tcp", "unix", "aiohttp"], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest, engines: Engines, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> str:
    """How requests reach the engines: our own HTTP over TCP or unix sockets (as through a tunnel), or aiohttp."""
    way = str(getattr(request, "param", DEFAULT_WAY))
    if way == "aiohttp":
        monkeypatch.setattr(runtime.dispatcher.membership, "_open_transport", Transport)
    elif way == "unix":

        def add(**options: Any) -> StubEngine:
            path = bench.sockets / f"{len(list(bench.sockets.iterdir()))}.sock"
            engine = StubEngine(**options)
            engines.start(engine, path=path)
            engine.base_url = f"http://{path.stem}"
            return engine

        def open_socket(base_url: str, **options: Any) -> Link:
            name = base_url.removeprefix("http://").removesuffix("/v1")
            return FastTransport(base_url, socket_path=Path(bench.sockets / f"{name}.sock"), **options)

        monkeypatch.setattr(engines, "add", add)
        monkeypatch.setattr(runtime.dispatcher.membership, "_open_transport", open_socket)
    return way


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.dispatcher.request_queue, "RETRY_BASE_S", 0.01)
    monkeypatch.setattr(runtime.dispatcher.request_queue, "RETRY_CAP_S", 0.05)


@over_every_way
def test_answers_bodies_byte_for_byte_in_openai_shape(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    body = (
        b'{"model":"tiny",  "x":1.10000000000000000001,"big":123456789012345678901234567890,'
        b'"messages":[{"role":"user","content":"\\u00e9\xc3\xa9"}]}'
    )
    bench.write_input([b'{"custom_id":"a\\u00e9","method":"POST","url":"/v1/chat/completions","body":' + body + b"}"])

    results = bench.run(engine.base_url)

    assert engine.bodies["run-1-00000000"] == body
    raw = (bench.output / "output.jsonl").read_bytes()
    assert raw.startswith(b'{"id":"batch_req_run-100000000","custom_id":"a\\u00e9","response":{"status_code":200,')
    assert NUMBER in raw
    assert results.output["aé"]["error"] is None
    assert not (bench.output / "error.jsonl").exists()
    assert results.progress.state == "finished"
    assert results.progress.usage.output_tokens == 5


FAULTS: list[tuple[str, list[str], int]] = [
    ("server error", ["500", "502", "504"], 4),
    ("request timeout of the server", ["408"], 2),
    ("busy without a word", ["503"] * 5, 6),
    ("busy with Retry-After", ["429:0.05", "503:0.05"] * 4, 9),
    ("reset", ["reset", "reset"], 3),
    ("closed without an answer", ["close", "close"], 3),
    ("cut in the body", ["truncate", "truncate"], 3),
    ("200 that is no JSON", ["garbage", "text:200"], 3),
    ("not even HTTP", ["nonsense"], 2),
    ("pretty-printed", ["pretty"], 1),
    ("early hints before the answer", ["early"], 1),
    ("ended by the end of the connection", ["closed"], 1),
    ("chunks, slowly", ["drip"], 1),
]


@over_every_way
@pytest.mark.parametrize(("faults", "tries"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_request_is_answered_in_spite_of(bench: Bench, engines: Engines, faults: list[str], tries: int) -> None:
    engine = engines.add()
    ids = bench.write_requests(20, lambda number: faults if number % 4 == 0 else ())

    results = bench.run(engine.base_url)

    assert results.output.keys() == ids
    assert engine.tries["run-1-00000000"] == tries
    assert engine.tries["run-1-00000001"] == 1


FINAL: list[tuple[str, int, Any]] = [
    ("400", 400, {"error": {"message": "asked for", "type": "fault", "code": 400}}),
    ("404", 404, {"error": {"message": "asked for", "type": "fault", "code": 404}}),
    ("422", 422, {"error": {"message": "asked for", "type": "fault", "code": 422}}),
    ("text:413", 413, "<html>no JSON</html>"),
]


@pytest.mark.parametrize(("fault", "status", "body"), FINAL)
def test_a_refusal_is_final_and_kept_as_openai_writes_it(
    bench: Bench, engines: Engines, fault: str, status: int, body: Any
) -> None:
    engine = engines.add()
    ids = bench.write_requests(6, lambda number: [fault] if number == 2 else ())

    results = bench.run(engine.base_url)

    assert results.output.keys() == ids - {"r2"}
    failed = results.error["r2"]
    assert (failed["response"]["status_code"], failed["response"]["body"], failed["error"]) == (status, body, None)
    assert engine.tries["run-1-00000002"] == 1
    assert (results.progress.request_counts.completed, results.progress.request_counts.failed) == (5, 1)


EXHAUSTED: list[tuple[str, str | None, int | None]] = [
    ("500", None, 500),
    ("reset", "connection_error", None),
    ("garbage", "invalid_answer", None),
]


@over_every_way
@pytest.mark.parametrize(("fault", "code", "status"), EXHAUSTED)
def test_a_request_that_never_works_is_given_up_after_max_retries(
    bench: Bench, engines: Engines, fault: str, code: str | None, status: int | None
) -> None:
    engine = engines.add()
    ids = bench.write_requests(4, lambda number: [fault] * 50 if number == 1 else ())

    results = bench.run(engine.base_url, options=DispatchOptions(max_retries=2))

    assert results.output.keys() == ids - {"r1"}
    failed = results.error["r1"]
    assert (failed["error"] or {}).get("code") == code
    assert (failed["response"] or {}).get("status_code") == status
    assert engine.tries["run-1-00000001"] == 3


@over_every_way
def test_a_soup_of_faults_loses_nothing_and_repeats_nothing(bench: Bench, engines: Engines) -> None:
    kinds = ["503", "reset", "close", "truncate", "garbage", "429:0.02", "500", "drip", "slow:0.1", "early", "closed"]
    first, second = engines.add(delay_s=0.002), engines.add(delay_s=0.004)
    ids = bench.write_requests(250, lambda number: [kinds[(number + step) % len(kinds)] for step in range(number % 4)])

    results = bench.run(first.base_url, second.base_url)

    assert results.output.keys() == ids
    assert first.requests > 0
    assert second.requests > 0


def test_a_retry_goes_to_another_replica(bench: Bench, engines: Engines) -> None:
    first, second = engines.add(), engines.add()
    bench.write_requests(1, lambda _number: ["500"])

    bench.run(first.base_url, second.base_url)

    assert (first.requests, second.requests) == (1, 1)


def test_a_full_queue_is_met_by_a_smaller_window(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.02, slots=4, queue_limit=4, has_metrics=False)
    ids = bench.write_requests(200)

    results = bench.run(engine.base_url)

    assert results.output.keys() == ids
    assert results.progress.replicas[0].window < 32
    turned_away = engine.requests - len(ids)
    assert 0 < turned_away < 100


def test_without_metrics_the_window_grows_and_is_filled(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.1, has_metrics=False)
    bench.write_requests(900)

    bench.run(engine.base_url)

    assert engine.most_running > 100


def test_one_retry_after_holds_back_all_requests(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(40, lambda _number: ["429:0.5"])

    results = bench.run(engine.base_url)

    assert results.output.keys() == ids
    assert results.progress.ended_at is not None
    assert results.progress.first_sent_at is not None
    assert results.progress.ended_at - results.progress.first_sent_at >= 0.5
    assert engine.requests <= 2 * len(ids)


def test_a_fixed_deadline_ends_a_request_that_hangs(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(3, lambda number: {0: ["stall"], 1: ["stall"] * 9}.get(number, []))

    results = bench.run(engine.base_url, options=DispatchOptions(request_timeout_s=0.3, max_retries=1))

    assert results.output.keys() == ids - {"r1"}
    assert results.error["r1"]["error"]["code"] == "request_timeout"
    assert results.error["r1"]["response"] is None


def test_an_engine_that_makes_no_token_is_given_up(
    bench: Bench, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.dispatcher.replica, "STALL_S", 1.5)
    monkeypatch.setattr(runtime.dispatcher.replica, "POLL_S", 0.1)
    stuck, good = engines.add(delay_s=600.0), engines.add()
    ids = bench.write_requests(20, lambda number: ["slow:0.2"] if number % 2 else ())

    results = bench.run(stuck.base_url, good.base_url, options=DispatchOptions(hedge=False))

    assert results.output.keys() == ids
    assert stuck.aborted > 0


@over_every_way
def test_a_dead_replica_costs_no_attempts_and_no_requests(bench: Bench, engines: Engines) -> None:
    first, second = engines.add(delay_s=0.01), engines.add(delay_s=0.01)
    ids = bench.write_requests(300, lambda number: ["die:60"] if number == 60 else ())

    results = bench.run(first.base_url, second.base_url, options=DispatchOptions(max_retries=0))

    assert results.output.keys() == ids
    assert first.deaths + second.deaths == 1


def test_all_dead_is_waited_for(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.01)
    ids = bench.write_requests(100, lambda number: ["die:0.5"] if number == 40 else ())

    results = bench.run(engine.base_url, options=DispatchOptions(max_retries=0))

    assert results.output.keys() == ids
    assert engine.deaths == 1


def test_an_engine_that_answers_but_says_it_is_dead_gets_nothing_more(bench: Bench, engines: Engines) -> None:
    sick, good = engines.add(), engines.add(delay_s=0.01)
    sick.health = 503
    ids = bench.write_requests(50)

    results = bench.run(sick.base_url, good.base_url)

    assert results.output.keys() == ids
    assert sick.requests == 0


@over_every_way
def test_a_line_that_kills_its_engine_is_found_and_all_others_are_done(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.005)
    ids = bench.write_requests(150, lambda number: ["die:0.2"] * 9 if number == 70 else ())

    results = bench.run(engine.base_url, options=DispatchOptions(max_retries=2))

    assert results.output.keys() == ids - {"r70"}
    assert results.error["r70"]["error"]["code"] == "poisoned_request"
    assert engine.deaths == 3


def test_the_batch_stops_when_everything_fails_alike(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.002)
    bench.write_requests(1000, lambda _number: ["404"])

    results = bench.run(engine.base_url, code=10)

    assert results.progress.state == "failed"
    assert "failed alike (status 404)" in results.progress.message
    assert 200 <= len(results.error) < 400


def test_different_failures_do_not_stop_the_batch(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(500, lambda number: ["404" if number % 2 else "400"])

    assert bench.run(engine.base_url).error.keys() == ids


def test_the_key_is_sent_as_bearer(bench: Bench, engines: Engines) -> None:
    engine = engines.add(key="secret")
    ids = bench.write_requests(3)
    key_file = bench.folder / "engine.key"
    key_file.write_text("secret\n")

    assert bench.run(engine.base_url + "/v1", engine_key_file=str(key_file)).output.keys() == ids


def test_a_key_of_two_lines_is_refused(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    bench.write_requests(3)
    key_file = bench.folder / "engine.key"
    key_file.write_text("secret\nX-Other: header\n")

    results = bench.run(engine.base_url, engine_key_file=str(key_file), code=2)

    assert "more than one line" in results.progress.message
    assert engine.requests == 0


def test_a_slow_request_is_tried_on_an_idle_replica_at_the_end(bench: Bench, engines: Engines) -> None:
    engines_two = [engines.add(delay_s=0.02), engines.add(delay_s=0.02)]
    ids = bench.write_requests(100, lambda number: ["slow:15"] if number == 95 else ())

    results = bench.run(*(engine.base_url for engine in engines_two))

    assert results.output.keys() == ids
    assert results.progress.ended_at is not None
    assert results.progress.ended_at - results.progress.started_at < 10
    assert results.progress.redone == 1


@over_every_way
def test_connections_are_used_again(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.002)
    bench.write_requests(500)

    bench.run(engine.base_url, options=DispatchOptions(max_concurrency=8))

    assert engine.connections <= 10


def test_the_window_never_passes_the_cap(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.01)
    bench.write_requests(100)

    bench.run(engine.base_url, options=DispatchOptions(max_concurrency=3))

    assert engine.most_running == 3


def test_ordered_output_has_the_order_of_the_input(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.01, jitter_s=0.01)
    bench.write_requests(100, lambda number: ["400"] if number % 7 == 0 else ())

    bench.run(engine.base_url, options=DispatchOptions(ordered=True))

    for name in ("output.jsonl", "error.jsonl"):
        lines = (bench.output / name).read_bytes().splitlines()
        numbers = [int(json.loads(line)["custom_id"][1:]) for line in lines]
        assert numbers == sorted(numbers)


def test_prefix_order_sends_like_beginnings_together(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    texts = [f"{'ab'[number % 2] * 300} {number}" for number in range(20)]
    bench.write_input(
        [make_line(f"r{number}", messages=[{"role": "user", "content": text}]) for number, text in enumerate(texts)]
    )

    bench.run(engine.base_url, options=DispatchOptions(order="prefix", max_concurrency=1))

    kinds = ["b" * 300 in body.decode() for body in engine.bodies.values()]
    assert kinds == [False] * 10 + [True] * 10


def test_a_base_url_that_is_none_is_said(bench: Bench) -> None:
    bench.write_requests(1)

    results = bench.run("127.0.0.1:8000", code=2)

    assert "127.0.0.1:8000: this is not the URL of a server" in results.progress.message


def test_without_uvloop_it_works_as_well(bench: Bench, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.dispatcher.dispatcher._choose_loop", lambda: None)
    engine = engines.add()
    ids = bench.write_requests(50, lambda number: ["reset"] if number % 10 == 0 else ())

    assert bench.run(engine.base_url).output.keys() == ids
