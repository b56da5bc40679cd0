"""The launches of rented machines, run for real with stand-ins for `vllm`, `docker` and `sudo` that start the local engine."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from stacks.launch.engine_script import ENGINE_EXITED, render_engine_settings
from stacks.launch.launch import EngineLaunch, GpuCheck

pytestmark = pytest.mark.wire
VLLM = """
import os, sys
arguments = sys.argv[1:]
with open(os.path.join(os.environ["LOG_DIR"], "vllm.log"), "a") as log:
    log.write(" ".join([*arguments, "token", str(len(os.environ.get("HF_TOKEN", "")))]) + "\\n")
key_file = os.path.join(os.environ["LOG_DIR"], "vllm.key")
with open(key_file, "w") as file:
    file.write(os.environ["VLLM_API_KEY"])
port = arguments[arguments.index("--port") + 1]
command = [sys.executable, "-m", "runtime.llamacpp_server", "--model", "builtin:tiny-chat", "--port", port]
os.execv(sys.executable, [*command, "--api-key-file", key_file])
"""
DOCKER = """
import os, signal, subprocess, sys
folder = os.environ["LOG_DIR"]
arguments = sys.argv[1:]
with open(os.path.join(folder, "docker.log"), "a") as log:
    log.write(" ".join(arguments) + "\\n")
pid_file = os.path.join(folder, "container.pid")
if arguments[0] == "rm" and os.path.exists(pid_file):
    os.kill(int(open(pid_file).read()), signal.SIGKILL)
if arguments[0] != "run":
    sys.exit(0)
if "no/such-image:1" in arguments:
    sys.exit("docker: Error response from daemon: pull access denied for no/such-image")
lines = open(arguments[arguments.index("--env-file") + 1]).read().splitlines()
environment = os.environ | dict(line.split("=", 1) for line in lines)
program = arguments[arguments.index("--entrypoint") + 1]
image = arguments.index("vllm/vllm-openai:v0.11.0")
process = subprocess.Popen([program, *arguments[image + 1:]], env=environment)
open(pid_file, "w").write(str(process.pid))
sys.exit(process.wait())
"""


@pytest.fixture
def pod_launch(launch: EngineLaunch) -> EngineLaunch:
    command = ("vllm", "serve", "me/model", "--host", "127.0.0.1", "--port", str(launch.port))
    return msgspec.structs.replace(
        launch,
        kind="vllm",
        where="pod",
        arguments=command,
        key_variable="VLLM_API_KEY",
        package="vllm==0.11.0",
        needs_hf_token=True,
        gpu=GpuCheck(count=1, min_memory_mib=73728),
    )


@pytest.fixture
def gpu_machine(machine: Any) -> Any:
    for name, text in (("vllm", VLLM), ("docker", DOCKER)):
        (machine.home / f"{name}.py").write_text(text)
        machine.add_command(name, f'LOG_DIR="{machine.home}" exec "{sys.executable}" "{machine.home}/{name}.py" "$@"')
    machine.add_command("sudo", '[ "$1" = -n ] && shift; exec "$@"')
    machine.add_command("nvidia-smi", "echo 81559")
    return machine


def test_vllm_on_a_pod_takes_key_and_token_from_its_environment(gpu_machine: Any, pod_launch: EngineLaunch) -> None:
    result = gpu_machine.start(pod_launch)

    assert result.returncode == 0, result.stderr
    assert gpu_machine.ask(pod_launch.port, "/v1/models")[0] == 200
    log = (gpu_machine.home / "vllm.log").read_text()
    assert log == f"{' '.join(pod_launch.arguments[1:])} token {len(gpu_machine.token)}\n"
    assert gpu_machine.engine.environ()["HF_TOKEN"] == gpu_machine.token


def test_vllm_that_a_pod_lacks_is_installed(gpu_machine: Any, pod_launch: EngineLaunch) -> None:
    (gpu_machine.bin / "vllm").rename(gpu_machine.home / "vllm-to-be")
    gpu_machine.add_command("uv", f'echo "uv $*"; mv "{gpu_machine.home}/vllm-to-be" "{gpu_machine.bin}/vllm"')

    result = gpu_machine.start(pod_launch)

    assert result.returncode == 0, result.stderr
    log = (gpu_machine.folder / "engine.log").read_text()
    assert "installing vllm==0.11.0\nuv pip install --system --break-system-packages vllm==0.11.0\n" in log


def test_an_install_that_fails_ends_the_start(gpu_machine: Any, pod_launch: EngineLaunch) -> None:
    (gpu_machine.bin / "vllm").unlink()
    gpu_machine.add_command("uv", "echo 'no solution found'; exit 1")

    result = gpu_machine.start(pod_launch)

    assert result.returncode == ENGINE_EXITED
    assert "no solution found" in result.stderr


def test_the_container_gets_its_secrets_by_a_file_that_is_gone_once_it_serves(
    gpu_machine: Any, pod_launch: EngineLaunch
) -> None:
    launch = as_vm(pod_launch)

    result = gpu_machine.start(launch)

    assert result.returncode == 0, result.stderr
    assert gpu_machine.ask(launch.port, "/v1/models")[0] == 200
    assert (gpu_machine.home / "vllm.log").read_text().endswith(f"token {len(gpu_machine.token)}\n")
    assert not (gpu_machine.folder / "engine.env").exists()
    said = (gpu_machine.home / "docker.log").read_text() + render_engine_settings(launch)
    assert gpu_machine.key not in said and gpu_machine.token not in said


def test_a_start_that_replaces_removes_the_old_container_first(gpu_machine: Any, pod_launch: EngineLaunch) -> None:
    launch = as_vm(pod_launch)
    gpu_machine.start(launch)
    old = gpu_machine.engine

    result = gpu_machine.start(msgspec.structs.replace(launch, arguments=(*launch.arguments, "--seed", "1")))

    assert result.returncode == 0, result.stderr
    words = [line.split()[0] for line in (gpu_machine.home / "docker.log").read_text().splitlines()]
    assert words[-3:] == ["rm", "info", "run"]
    gpu_machine.wait_for(lambda: gpu_machine.is_gone(old))


def test_an_image_that_cannot_be_pulled_fails_with_dockers_words(gpu_machine: Any, pod_launch: EngineLaunch) -> None:
    result = gpu_machine.start(msgspec.structs.replace(as_vm(pod_launch), image="no/such-image:1"))

    assert result.returncode == ENGINE_EXITED
    assert "pull access denied for no/such-image" in result.stderr
    assert not (gpu_machine.folder / "engine.env").exists()


def as_vm(launch: EngineLaunch) -> EngineLaunch:
    return msgspec.structs.replace(
        launch, where="vm", package="", image="vllm/vllm-openai:v0.11.0", container="leasehold-engine-1"
    )
