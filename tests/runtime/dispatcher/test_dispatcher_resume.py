"""Killed at any moment and started again: every id once, and not much done twice."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal

import pytest

from runtime.dispatcher.dispatcher import run_dispatcher
from runtime.dispatcher.manifest import DispatchOptions
from schemas.durations import find_step
from tests.runtime.conftest import Bench, Engines, Results, make_line, wait_until

pytestmark = pytest.mark.wire
KILLS = 8  # `./inv bench --gates --full` does 50 over 20,000 requests
TAILS = [b"", b'{"id":"batch_req_run-1000000', b"\0" * 4096, b'{"id":"x"}\n\0\0\0', b"garbage\n"]


def test_kill_9_at_random_points_with_torn_tails_loses_and_repeats_nothing(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.005, jitter_s=0.004)
    draw = random.Random(7)
    ids = bench.write_requests(6000, lambda number: ["400"] if number % 50 == 0 else ())

    for tail in itertools.islice(itertools.cycle(TAILS), KILLS):
        done = bench.count_done()
        process = bench.start(engine.base_url)
        goal = done + draw.randint(50, 600)
        wait_until(lambda: bench.count_done() >= goal or process.poll() is not None)  # noqa: B023
        process.kill()
        process.wait()
        for name in ("output.jsonl.part", "error.jsonl.part"):
            with (bench.output / name).open("ab") as file:
                file.write(tail)
        assert count_timed(bench) <= count_kept(bench), "what will be answered again has a duration already"
    timed, kept = count_timed(bench), count_kept(bench)
    results = bench.run(engine.base_url)

    assert results.ids == ids
    assert len(results.error) == 120
    assert results.progress.request_counts.completed == 5880
    redone = sum(engine.tries.values()) - len(ids)
    assert redone <= KILLS * (64 + 600)
    assert count_timed(bench) == timed + 5880 - kept


def test_what_was_timed_before_a_kill_stays_and_is_not_timed_again(bench: Bench, engines: Engines) -> None:
    slow, fast = engines.add(delay_s=0.2), engines.add()
    bench.write_requests(600)
    process = bench.start(slow.base_url)
    wait_until(lambda: (bench.output / "progress.json").exists() and count_timed(bench) > 0)
    process.kill()
    process.wait()
    timed, kept = count_timed(bench), count_kept(bench)

    durations = bench.run(fast.base_url).progress.durations

    assert durations is not None
    assert durations.answers == sum(answers for _, answers in durations.steps) == timed + 600 - kept
    assert sum(answers for step, answers in durations.steps if step >= find_step(0.2)) >= timed > 0
    assert durations.longest_s >= 0.2


def count_timed(bench: Bench) -> int:
    progress = bench.read_progress()
    assert progress is not None
    return progress.durations.answers if progress.durations else 0


def count_kept(bench: Bench) -> int:
    return (bench.output / "output.jsonl.part").read_bytes().count(b'"error":null}\n')


def test_nothing_is_sent_again_when_all_is_done(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    bench.write_requests(5)
    before = bench.run(engine.base_url)

    after = bench.run(engine.base_url)

    assert after.output == before.output
    assert engine.requests == 5
    assert after.progress == before.progress


def test_a_death_between_the_two_renames_is_mended(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(10, lambda number: ["400"] if number == 3 else ())
    bench.run(engine.base_url)
    (bench.output / "output.jsonl").rename(bench.output / "output.jsonl.part")

    results = bench.run(engine.base_url)

    assert results.ids == ids
    assert engine.requests == 10
    assert not list(bench.output.glob("*.part"))


def test_good_lines_behind_damage_are_kept(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(10)
    bench.run(engine.base_url)
    lines = (bench.output / "output.jsonl").read_bytes().splitlines(keepends=True)
    (bench.output / "output.jsonl").unlink()
    damaged = b"".join(lines[:4]) + b"\0" * 100 + b"\n" + b"".join(lines[5:8]) + lines[2] + lines[8]
    (bench.output / "output.jsonl.part").write_bytes(damaged)

    results = bench.run(engine.base_url)

    assert results.output.keys() == ids
    assert engine.requests == 12


@pytest.mark.parametrize("change", ["body", "order", "more"])
def test_an_input_that_changed_is_refused(bench: Bench, engines: Engines, change: str) -> None:
    engine = engines.add()
    bench.write_requests(10, lambda number: ["stall"] if number == 9 else ())
    process = bench.start(engine.base_url)
    wait_until(lambda: bench.count_done() == 9)
    process.kill()
    process.wait()
    lines = bench.input.read_bytes().splitlines()
    changed = {
        "body": [*lines[:5], lines[5].replace(b"hello", b"jello"), *lines[6:]],
        "order": lines[::-1],
        "more": [*lines, make_line("new")],
    }
    bench.write_input(changed[change])

    results = bench.run(engine.base_url, code=2)

    assert results.progress.state == "failed"
    assert "the input changed since this run began" in results.progress.message
    assert len(results.output) == 9


def test_a_touched_input_is_still_the_same(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(10, lambda number: ["stall"] if number == 9 else ())
    process = bench.start(engine.base_url)
    wait_until(lambda: bench.count_done() == 9)
    process.kill()
    process.wait()
    os.utime(bench.input, (1, 1))

    assert bench.run(engine.base_url, options=DispatchOptions(request_timeout_s=0.5)).output.keys() == ids


def test_an_input_written_to_while_it_runs_fails_the_run(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=60.0)
    bench.write_requests(10)
    process = bench.start(engine.base_url)
    wait_until(lambda: engine.running == 10)
    with bench.input.open("ab") as file:
        file.write(b"more\n")

    assert process.wait(10) == 2
    assert "the input changed while it was being read" in Results(bench.output).progress.message


def test_bad_input_fails_with_every_problem(bench: Bench) -> None:
    bench.write_input([make_line("a"), b"{", make_line("a"), make_line("")])

    results = bench.run("http://127.0.0.1:1", code=2)

    assert results.progress.state == "failed"
    for text in (":2:", "invalid_json_line", ":3:", "duplicate_custom_id", ":4:", "empty_custom_id"):
        assert text in results.progress.message


def test_a_second_dispatcher_steps_back_at_once(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=60.0)
    bench.write_requests(2)
    first = bench.start(engine.base_url)
    wait_until(lambda: (progress := bench.read_progress()) is not None and progress.state == "running")

    assert run_dispatcher(bench.make_manifest(engine.base_url)) == 0

    assert first.poll() is None
    progress = bench.read_progress()
    assert progress is not None
    assert (progress.pid, progress.state) == (first.pid, "running")


def test_a_full_disk_is_said_and_resumed_from(bench: Bench, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines.add(delay_s=0.04)
    ids = bench.write_requests(400)
    real_write = os.write
    begins = {}

    def write(descriptor: int, data: bytes) -> int:
        """A disk that is full after 20 kB of results, in the middle of a line."""
        if not bytes(data).startswith(b'{"id":"batch_req') and descriptor not in begins:
            return real_write(descriptor, data)
        begins[descriptor] = True
        room = 20_000 - os.fstat(descriptor).st_size
        if room <= 0:
            raise OSError(28, "No space left on device")
        return real_write(descriptor, bytes(data)[:room])

    with monkeypatch.context() as patch:
        patch.setattr("runtime.batch.journal.os.write", write)
        assert run_dispatcher(bench.make_manifest(engine.base_url)) == 1
    stopped = Results(bench.output)
    results = bench.run(engine.base_url)

    assert "No space left on device" in stopped.progress.message
    assert 0 < len(stopped.output) < len(ids)
    assert results.output.keys() == ids


def test_a_limit_takes_the_first_lines_and_can_be_raised(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    bench.write_requests(10)

    first = bench.run(engine.base_url, options=DispatchOptions(line_limit=4))
    (bench.output / "output.jsonl").rename(bench.output / "output.jsonl.part")
    second = bench.run(engine.base_url, options=DispatchOptions(line_limit=6))

    assert first.output.keys() == {f"r{number}" for number in range(4)}
    assert first.progress.request_counts.total == 4
    assert second.output.keys() == {f"r{number}" for number in range(6)}
    assert engine.requests == 6


def test_the_signal_of_a_terminal_stops_in_good_order(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.05)
    bench.write_requests(2000)
    process = bench.start(engine.base_url, options=DispatchOptions(max_concurrency=4))
    wait_until(lambda: bench.count_done() > 10)
    process.send_signal(signal.SIGINT)

    assert process.wait(10) == 0
    results = Results(bench.output)
    assert results.progress.state == "stopped"
    assert results.progress.stop_reason is None
    assert len(results.output) == sum(engine.answered.values())
    assert json.loads((bench.output / "stats.jsonl").read_bytes().splitlines()[-1])["completed"] == len(results.output)
