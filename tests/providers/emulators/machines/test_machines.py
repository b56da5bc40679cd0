"""Real machines behind pods and instances: SSH with the pinned key, the commands of a GPU host, and their certain end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from providers.emulators.emulator import start_emulator, start_emulator_process
from providers.local.processes import MARK_FOLDER

pytestmark = pytest.mark.wire

QUERY = "nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits"


def list_processes(root: Path) -> list[str]:
    """Command lines of everything that belongs to the machines under root."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK_FOLDER, "").startswith(str(root)):
                found.append(" ".join(process.cmdline()))
    return found


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask_engine(port: int, key: str) -> httpx.Response | None:
    """Its answer; None while it is not there, or still loads its model."""
    url, headers = f"http://127.0.0.1:{port}/v1/models", {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.get(url, headers=headers, timeout=2)
    except httpx.TransportError:
        return None
    return None if answer.status_code == 503 else answer


@pytest.fixture
def fast_runpod(open_account: Any) -> Any:
    return open_account("runpod", real_machines=True, speed=60)


def wait_for_direct(account: Any, pod_id: str, wait_for: Any) -> int:
    direct = wait_for(lambda: account.get_pod(pod_id)["ssh"]["direct"], "ssh.direct")
    return int(direct["port"])


@pytest.mark.parametrize("image", ["runpod/pytorch:1", "vllm/vllm-openai:v0.9"])
def test_a_pod_runs_its_command_and_answers_ssh_with_the_pinned_key(
    fast_runpod: Any, ssh: Any, start_script: str, wait_for: Any, tmp_path: Path, image: str
) -> None:
    env = ssh.pod_env | {"SECRET_OF_THE_POD": "not for sessions"}
    pod = fast_runpod.make_pod(image=image, env=env, entrypoint=["bash", "-c"], cmd=[start_script])
    port = wait_for_direct(fast_runpod, pod["id"], wait_for)
    ssh.wait(port)

    seen = ssh.run(port, f"{QUERY}; env; touch here")
    assert seen.stdout.splitlines()[0] == str(80 * 1024)
    assert "SECRET_OF_THE_POD" not in seen.stdout and "RUNPOD_API_KEY" not in seen.stdout
    stranger = ssh.__class__(make_folder(tmp_path / "stranger"))
    assert stranger.run(port, "true").returncode == 255
    assert read_log(fast_runpod, pod["id"], until="the pod starts sshd")
    folder = Path(fast_runpod.emulator.machines()[0].folder)
    assert (folder / "home" / "here").exists()
    fast_runpod.http.delete(f"/pods/{pod['id']}")
    wait_for(lambda: not folder.exists() and not list_processes(folder), "the machine's end")


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def read_log(account: Any, pod_id: str, *, until: str) -> bool:
    with account.http.stream("GET", f"/pods/{pod_id}/logs", params={"source": "container", "tail": 50}) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        return any(until in line for line in answer.iter_lines())


def test_vllm_on_a_pod_starts_the_local_engine_with_its_key(
    fast_runpod: Any, ssh: Any, start_script: str, wait_for: Any
) -> None:
    pod = fast_runpod.make_pod(env=ssh.pod_env, entrypoint=["sh", "-c"], cmd=[start_script])
    port = wait_for_direct(fast_runpod, pod["id"], wait_for)
    ssh.wait(port)
    engine_port = find_free_port()

    command = f"vllm serve Qwen/Qwen2.5-7B --served-model-name mine --host 127.0.0.1 --port {engine_port}"
    ssh.run(
        port, f"read -r VLLM_API_KEY; export VLLM_API_KEY; setsid {command} >log 2>&1 </dev/null &", stdin="s3cret\n"
    )

    wait_for(lambda: ask_engine(engine_port, "s3cret"), "the engine")
    answer = ask_engine(engine_port, "s3cret")
    assert answer is not None and answer.json()["data"][0]["id"] == "mine"
    refused = ask_engine(engine_port, "wrong")
    assert refused is not None and refused.status_code == 401
    folder = Path(fast_runpod.emulator.machines()[0].folder)
    assert not any("s3cret" in line for line in list_processes(folder))
    fast_runpod.http.delete(f"/pods/{pod['id']}")
    wait_for(lambda: ask_engine(engine_port, "s3cret") is None, "the engine's end")


def test_a_pod_whose_first_process_ends_is_exited_and_its_log_can_be_read(fast_runpod: Any, wait_for: Any) -> None:
    fast_runpod.emulator.set_fault("apt_get_fails")
    cmd = ["apt-get install -y openssh-server || echo 'no sshd here'; exit 3"]
    pod = fast_runpod.make_pod(image="vllm/vllm-openai:v1", entrypoint=["bash", "-c"], cmd=cmd)

    wait_for(lambda: fast_runpod.get_pod(pod["id"])["status"] == "EXITED", "the container's end")
    assert read_log(fast_runpod, pod["id"], until="no sshd here")


def test_arguments_alone_go_to_the_images_own_entrypoint(fast_runpod: Any, wait_for: Any) -> None:
    pod = fast_runpod.make_pod(image="vllm/vllm-openai:v1", cmd=["--version-of-what"])

    wait_for(lambda: fast_runpod.get_pod(pod["id"])["status"] == "EXITED", "the container's end")
    assert read_log(fast_runpod, pod["id"], until="vllm serve: error")


def test_a_pod_ends_itself_with_the_key_inside(fast_runpod: Any, wait_for: Any) -> None:
    script = 'curl -s -o /dev/null -A pod -X DELETE -H "Authorization: Bearer $RUNPOD_API_KEY" "$API/pods/$RUNPOD_POD_ID"; sleep 60'
    pod = fast_runpod.make_pod(env={"API": fast_runpod.emulator.base_url}, entrypoint=["sh", "-c"], cmd=[script])

    wait_for(lambda: fast_runpod.emulator.machines()[0].is_gone, "the pod's own end")
    last = [exchange for exchange in fast_runpod.emulator.history() if exchange.method == "DELETE"]
    assert [(exchange.key, exchange.status) for exchange in last] == [(f"pod:{pod['id']}", 204)]


def test_runpodctl_ends_a_pod_where_rest_may_not(fast_runpod: Any, wait_for: Any) -> None:
    fast_runpod.emulator.set_fault("pod_key_rights", "graphql")
    fast_runpod.make_pod(entrypoint=["sh", "-c"], cmd=['runpodctl remove pod "$RUNPOD_POD_ID"; sleep 60'])

    wait_for(lambda: fast_runpod.emulator.machines()[0].is_gone, "the pod's own end")


def test_gpu_faults_are_seen_on_the_machine(fast_runpod: Any, ssh: Any, start_script: str, wait_for: Any) -> None:
    fast_runpod.emulator.set_fault("nvidia_smi", "wrong_memory")
    fast_runpod.emulator.set_fault("engine_crash", "CUDA out of memory")
    pod = fast_runpod.make_pod(env=ssh.pod_env, entrypoint=["sh", "-c"], cmd=[start_script])
    port = wait_for_direct(fast_runpod, pod["id"], wait_for)
    ssh.wait(port)

    assert ssh.run(port, QUERY).stdout.strip() == "1024"
    crash = ssh.run(port, "vllm serve m --port 1")
    assert (crash.returncode, "CUDA out of memory" in crash.stderr) == (1, True)
    fast_runpod.emulator.strike(pod["id"], "nvidia_smi:failing")
    assert ssh.run(port, QUERY).returncode == 9
    fast_runpod.emulator.strike(pod["id"], "nvidia_smi:absent")
    assert ssh.run(port, "command -v nvidia-smi").returncode != 0


@pytest.fixture
def fast_lambda(open_account: Any) -> Any:
    account = open_account("lambda", real_machines=True, speed=120)
    account.emulator.set_fault("active_after_s", 120)
    return account


def test_an_instance_boots_with_cloud_init_and_runs_the_engine_in_docker(
    fast_lambda: Any, ssh: Any, wait_for: Any
) -> None:
    fast_lambda.add_key(ssh.client.public)
    data = ssh.user_data + "write_files:\n  - {path: /home/ubuntu/a/b, content: hello}\n"
    data += "runcmd:\n  - echo ran >/home/ubuntu/ran\n  - [docker, ps]\n"
    instance_id = fast_lambda.launch(user_data=data)
    port = fast_lambda.get_instance(instance_id)["ssh_port"]
    assert ssh.run(port, "true", user="ubuntu").returncode == 255, "nothing may answer before the boot is over"
    wait_for(lambda: fast_lambda.get_instance(instance_id)["status"] == "active", "active")
    ssh.wait(port, user="ubuntu")

    def run(command: str, stdin: str = "") -> Any:
        return ssh.run(port, command, user="ubuntu", stdin=stdin)

    assert run("cat a/b").stdout == "hello"
    wait_for(lambda: run("cat ran").stdout == "ran\n", "runcmd")
    assert run("docker ps").returncode == 1 and run("sudo -n docker ps").returncode == 0
    engine_port = find_free_port()
    run("umask 077; cat >env", stdin="VLLM_API_KEY=s3cret\n")
    started = run(
        f"sudo docker run -d --name engine --gpus all --ipc=host --env-file env -p 127.0.0.1:{engine_port}:8000"
        " -v ~/cache:/root/.cache/huggingface vllm/vllm-openai:v0.9 Qwen/Qwen2.5-7B --served-model-name mine"
    )
    assert started.returncode == 0, started.stderr
    answer = wait_for(lambda: ask_engine(engine_port, "s3cret"), "the engine")
    assert answer.json()["data"][0]["id"] == "mine"
    assert run("sudo docker inspect -f '{{.State.Running}}' engine").stdout == "true\n"
    assert "mine" in run("sudo docker logs --tail 5 engine").stdout
    assert run("sudo docker rm -f engine").stdout == "engine\n"
    assert run("sudo docker ps -aq").stdout == "" and ask_engine(engine_port, "s3cret") is None
    folder = Path(fast_lambda.emulator.machines()[0].folder)
    fast_lambda.terminate(instance_id)
    wait_for(lambda: not list_processes(folder), "the machine's end")


def test_a_shutdown_from_inside_leaves_an_unwell_instance_that_is_billed(
    fast_lambda: Any, ssh: Any, wait_for: Any
) -> None:
    fast_lambda.add_key(ssh.client.public)
    instance_id = fast_lambda.launch(user_data=ssh.user_data)
    port = fast_lambda.get_instance(instance_id)["ssh_port"]
    ssh.wait(port, user="ubuntu")

    ssh.run(port, "sudo shutdown -h now", user="ubuntu")

    wait_for(lambda: fast_lambda.get_instance(instance_id)["status"] == "unhealthy", "the end of its processes")
    assert fast_lambda.emulator.live_machines() != []


def test_closing_the_emulator_ends_all_machines(
    tmp_path: Path, wait_for: Any, make_http: Any, make_pod_body: Any
) -> None:
    state_dir = tmp_path / "state"
    with start_emulator("runpod", state_dir=state_dir) as emulator, make_http(emulator.base_url, emulator.key) as http:
        for _ in range(3):
            http.post("/pods", json=make_pod_body(entrypoint=["sh", "-c"], cmd=["setsid sleep 600 & sleep 600"]))
        wait_for(lambda: sum("sleep 600" in line for line in list_processes(state_dir)) >= 6, "three busy machines")

    assert list_processes(state_dir) == []


def test_machines_end_by_themselves_when_the_emulator_is_killed(
    tmp_path: Path, wait_for: Any, make_http: Any, make_pod_body: Any
) -> None:
    state_dir = tmp_path / "state"
    emulator = start_emulator_process("runpod", state_dir=state_dir)
    with make_http(emulator.base_url, emulator.key) as http:
        http.post("/pods", json=make_pod_body(entrypoint=["sh", "-c"], cmd=["setsid sleep 600 & sleep 600"]))
    wait_for(lambda: sum("sleep 600" in line for line in list_processes(state_dir)) >= 2, "a busy machine")

    os.kill(emulator.pid, signal.SIGKILL)

    wait_for(lambda: not list_processes(state_dir), "the machine's end", timeout_s=5)
    emulator.close()
