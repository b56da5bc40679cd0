"""The emulators as a process of their own, and their admin routes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.emulators.emulator import EmulatorError, start_emulator_process
from providers.emulators.serve import main

pytestmark = pytest.mark.wire


def test_a_process_tells_where_it_is_and_ends_on_an_admin_call(tmp_path: Path, make_http: Any) -> None:
    arguments = ["--speed", "60", "--fault", "ssh_after_s=6", "--foreign", "2", "--no-machines", "--contract", "august"]
    emulator = start_emulator_process("runpod", state_dir=tmp_path, arguments=arguments)
    assert emulator.exports == {"RUNPOD_API_KEY": emulator.key, "RUNPOD_BASE_URL": emulator.base_url}
    with make_http(emulator.base_url, emulator.key) as http:
        listed = http.get("/pods").json()
    assert len(listed["pods"]) == 2 and "pagination" not in listed
    before = emulator.now()
    emulator.advance(100)
    assert emulator.now() - before >= 100
    assert httpx.get(f"{emulator.admin_url}/history").status_code == 401

    answer = httpx.post(f"{emulator.admin_url}/shutdown", headers={"X-Emulator-Token": emulator.admin_token})
    assert answer.status_code == 200
    emulator.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(emulator.base_url)


def test_both_clouds_run_in_one_process_until_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "providers.emulators.serve", "--state-dir", str(tmp_path), "--no-machines"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()
        assert process.wait(10) == 0

    assert ['"cloud": "lambda"' in lines[0], '"cloud": "runpod"' in lines[1]] == [True, True]


def test_an_admin_mistake_is_told(runpod: Any) -> None:
    with pytest.raises(EmulatorError, match="no knob 'ssh_newer'"):
        runpod.emulator.set_fault("ssh_newer")
    with pytest.raises(EmulatorError):
        runpod.emulator.strike("nobody", "exit")
    with pytest.raises(EmulatorError, match="no such admin route"):
        runpod.emulator._call("GET", "nonsense")


def test_the_knobs_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--list-faults"])

    assert end.value.code == 0
    assert "create_500_after_commit" in capsys.readouterr().out
