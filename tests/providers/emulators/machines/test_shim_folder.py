"""An emulated machine can never reach the commands with which its scripts would change this computer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from providers.emulators.emulator import start_emulator
from providers.emulators.machines import machines
from providers.emulators.machines.machine_file import MachineFile
from providers.emulators.machines.machines import MachinePlan, start
from providers.emulators.machines.shim_folder import REFUSED, SHIMS, UNSAFE_PATH, make_guard, write_shims
from providers.emulators.serve import main
from providers.local.environment import make_environment
from providers.local.folder import STANDARD_PATH, MachineSpec
from providers.local.listing import terminate_machine

CHANGING = {
    "apt-get",
    "apt",
    "dpkg",
    "pip",
    "pip3",
    "uv",
    "apk",
    "dnf",
    "yum",
    "shutdown",
    "reboot",
    "systemctl",
    "sudo",
    "docker",
}


@pytest.fixture
def shims(tmp_path: Path) -> Path:
    write_shims(tmp_path / "shims")
    return tmp_path / "shims"


@pytest.mark.parametrize("host", sorted(SHIMS))
def test_what_could_change_this_computer_is_a_stand_in(shims: Path, host: str) -> None:
    path = f"{shims / host}:{STANDARD_PATH}:/usr/local/sbin:/usr/sbin:/sbin"

    for command in CHANGING | set(REFUSED):
        assert shutil.which(command, path=path) == str(shims / host / command)


def test_refused_commands_do_nothing_and_say_so(shims: Path) -> None:
    done = subprocess.run([shims / "runpod" / "dpkg", "-i", "x.deb"], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (127, "dpkg: not on an emulated machine\n")


@pytest.mark.skipif(
    shutil.which("python3", path=STANDARD_PATH) is None, reason="this computer has no python3 of its own"
)
def test_python_runs_and_installs_nothing(shims: Path) -> None:
    python = shims / "runpod" / "python3"

    assert subprocess.run([python, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout == "42\n"
    refused = subprocess.run([python, "-m", "pip", "install", "x"], capture_output=True, text=True)
    assert (refused.returncode, "installs nothing" in refused.stderr) == (1, True)


def test_a_folder_that_would_cut_the_path_in_two_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no colon"):
        start_emulator("runpod", state_dir=tmp_path / "a:b")
    assert main(["--cloud", "runpod", "--state-dir", str(tmp_path / "a:b")]) == 1
    assert "no colon" in capsys.readouterr().err
    assert not (tmp_path / "a:b").exists()


def test_a_start_script_ends_at_once_when_its_path_is_wrong(shims: Path) -> None:
    script = make_guard(shims / "runpod") + "echo started"

    def run(path: str) -> tuple[int, str]:
        done = subprocess.run(["/bin/sh", "-c", script], env={"PATH": path}, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert run(f"{shims / 'runpod'}:{STANDARD_PATH}") == (0, "started\n")
    assert run(STANDARD_PATH) == (UNSAFE_PATH, "")


@pytest.mark.wire
@pytest.mark.parametrize(("is_real_there", "found"), [(False, False), (True, True)])
def test_an_image_without_sshd_has_the_stand_in_where_the_real_one_could_be_reached(
    tmp_path: Path, shims: Path, monkeypatch: pytest.MonkeyPatch, is_real_there: bool, found: bool
) -> None:
    monkeypatch.setattr(machines, "has_real_sshd", lambda: is_real_there)
    values: dict[str, Any] = {"public_key": "", "host_private_key": "", "expires_at": 2**33}
    spec = MachineSpec(id="m1", name="m", start_script="sleep 60", shims=(str(shims / "runpod"),), **values)
    file = MachineFile(cloud="runpod", id="m1", api_url="", gpu_name="", gpu_count=0, gpu_memory_mib=0)
    folder = tmp_path / "machines" / "m1"
    try:
        start(tmp_path / "machines", MachinePlan(spec=spec, file=file, has_sshd=False))

        path = make_environment(folder, spec)["PATH"]
        assert (shutil.which("sshd", path=path) == str(folder / "bin" / "sshd")) == found
    finally:
        terminate_machine(tmp_path / "machines", "m1")
