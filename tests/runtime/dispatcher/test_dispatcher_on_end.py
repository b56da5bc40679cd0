"""The command that a dispatcher starts when it ends, so that somebody sees to the machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.conftest import Bench, Engines, wait_until

pytestmark = pytest.mark.wire


def dispatch(bench: Bench, *flags: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "runtime.dispatcher", *flags, str(bench.manifest_path)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)


def test_it_is_started_when_the_batch_has_ended(bench: Bench, engines: Engines, tmp_path: Path) -> None:
    bench.write_requests(5)
    bench.write_manifest(engines.add().base_url, on_end=("/bin/sh", "-c", f'echo over > "{tmp_path}/told"'))

    assert dispatch(bench).returncode == 0

    wait_until((tmp_path / "told").exists)


def test_it_is_not_started_by_the_one_that_only_asks_for_a_stop(bench: Bench, engines: Engines, tmp_path: Path) -> None:
    bench.write_requests(5)
    bench.write_manifest(engines.add().base_url, on_end=("/bin/sh", "-c", f'echo over > "{tmp_path}/told"'))

    bench.output.mkdir()
    assert dispatch(bench, "--stop", "--reason", "batch_cancelled").returncode == 0

    assert (bench.output / "error.jsonl").read_text().count("batch_cancelled") == 5
    assert not (bench.output / "on_end.log").exists()


def test_one_that_cannot_be_started_does_not_fail_the_batch(bench: Bench, engines: Engines) -> None:
    bench.write_requests(5)
    bench.write_manifest(engines.add().base_url, on_end=("/no/such/program",))

    done = dispatch(bench)

    assert done.returncode == 0
    assert b"/no/such/program" in done.stderr
