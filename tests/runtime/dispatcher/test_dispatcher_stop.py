"""Asked to stop: by --stop with and without a reason, by the deadline, and when nobody is there to be asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from runtime.dispatcher.manifest import DispatchOptions
from schemas.status import StopReason
from tests.runtime.conftest import Bench, Engines, Results, wait_until

pytestmark = pytest.mark.wire


def stop(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "runtime.dispatcher", "--stop", *arguments, str(bench.manifest_path)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)


def count_codes(results: Results) -> Counter[str]:
    return Counter(result["error"]["code"] for result in results.error.values())


def test_stop_keeps_what_is_finished_and_can_be_gone_on_from(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.1)
    ids = bench.write_requests(400)
    process = bench.start(engine.base_url, options=DispatchOptions(max_concurrency=4))
    wait_until(lambda: bench.count_done() > 8)

    assert stop(bench).returncode == 0

    assert process.wait(1) == 0
    stopped = Results(bench.output)
    assert stopped.progress.state == "stopped"
    assert stopped.error == {}
    assert (bench.output / "output.jsonl.part").exists()
    assert engine.aborted == 0  # what was in flight was waited for
    finished = bench.run(engine.base_url)
    assert finished.output.keys() == ids
    assert sum(engine.tries.values()) == len(ids)


@pytest.mark.parametrize("reason", ["batch_cancelled", "batch_expired", "budget_exceeded"])
def test_stop_with_a_reason_writes_a_line_for_all_that_never_ran(
    bench: Bench, engines: Engines, reason: StopReason
) -> None:
    engine = engines.add(delay_s=0.05)
    ids = bench.write_requests(3000)
    process = bench.start(engine.base_url)
    wait_until(lambda: bench.count_done() > 8)

    assert stop(bench, "--reason", reason).returncode == 0

    assert process.wait(1) == 0
    results = Results(bench.output)
    assert results.ids == ids
    assert set(count_codes(results)) == {reason}
    assert results.progress.state == "stopped"
    assert results.progress.stop_reason == reason
    assert results.progress.request_counts.failed == len(results.error)
    assert not list(bench.output.glob("*.part"))


def test_stop_with_a_reason_finishes_the_files_of_a_dispatcher_that_is_dead(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.05)
    ids = bench.write_requests(500)
    process = bench.start(engine.base_url)
    wait_until(lambda: bench.count_done() > 8)
    process.kill()
    process.wait()

    assert stop(bench, "--reason", "batch_cancelled").returncode == 0
    assert stop(bench, "--reason", "batch_expired").returncode == 0

    results = Results(bench.output)
    assert results.ids == ids
    assert set(count_codes(results)) == {"batch_cancelled"}
    assert results.progress.stop_reason == "batch_cancelled"


def test_a_stop_that_was_cut_short_does_not_count_its_lines(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(50)
    bench.write_manifest(engine.base_url)
    bench.output.mkdir()
    assert stop(bench, "--reason", "batch_cancelled").returncode == 0
    (bench.output / "output.jsonl").rename(bench.output / "output.jsonl.part")
    error = (bench.output / "error.jsonl").read_bytes()
    (bench.output / "error.jsonl").unlink()
    (bench.output / "error.jsonl.part").write_bytes(error[: len(error) // 2])

    assert bench.run(engine.base_url).output.keys() == ids


def test_stop_of_nothing_succeeds(bench: Bench) -> None:
    bench.write_requests(2)
    bench.write_manifest("http://127.0.0.1:1")

    assert stop(bench).returncode == 0
    bench.output.mkdir()
    assert stop(bench).returncode == 0
    bench.manifest_path.write_text("{")
    assert stop(bench).returncode == 0


def test_a_dispatcher_that_does_not_stop_in_time_is_killed(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=60.0)
    ids = bench.write_requests(20)
    process = bench.start(engine.base_url)
    wait_until(lambda: engine.running == 20)
    began = time.monotonic()

    assert stop(bench, "--timeout", "0.5", "--reason", "batch_cancelled").returncode == 0

    assert time.monotonic() - began < 5
    assert process.wait(1) == -9
    assert Results(bench.output).ids == ids


def test_a_ctrl_c_after_another_stop_waits_for_nothing(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=60.0)
    bench.write_requests(20)
    process = bench.start(engine.base_url)
    wait_until(lambda: engine.running == 20)
    process.terminate()
    wait_until(lambda: (progress := bench.read_progress()) is not None and progress.state == "draining")
    process.send_signal(signal.SIGINT)

    assert process.wait(3) == 0
    wait_until(lambda: engine.aborted == 20)


def test_the_deadline_stops_by_itself(bench: Bench, engines: Engines) -> None:
    engine = engines.add(delay_s=0.05)
    ids = bench.write_requests(3000)

    results = bench.run(engine.base_url, deadline=time.time() + 1.0, options=DispatchOptions(max_concurrency=4))

    assert results.ids == ids
    assert results.output
    assert set(count_codes(results)) == {"batch_expired"}
    assert results.progress.stop_reason == "batch_expired"


def test_a_deadline_in_the_past_sends_nothing(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    ids = bench.write_requests(30)

    results = bench.run(engine.base_url, deadline=time.time() - 5)

    assert results.error.keys() == ids
    assert engine.requests == 0


def test_without_machines_it_waits_and_says_so(bench: Bench) -> None:
    bench.write_requests(3)
    process = bench.start()
    wait_until(lambda: (progress := bench.read_progress()) is not None and progress.request_counts.total == 3)

    progress = bench.read_progress()
    assert progress is not None
    assert (progress.state, progress.replicas) == ("waiting", ())
    process.terminate()
    assert process.wait(5) == 0
