"""What the commands of an emulated host make of their arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.emulators.lambda_cloud.cloud_init import UserData, locate, parse_user_data
from providers.emulators.machines.machine_file import MachineFile
from providers.emulators.runpod.graphql_text import find_operation, read_input
from providers.emulators.runpod.pod import make_argv
from providers.emulators.shims import nvidia_smi, sshd, sudo, vllm
from providers.emulators.shims.docker_run import UsageError, read_run

MACHINE = MachineFile(cloud="lambda", id="i", api_url="", gpu_name="NVIDIA A10", gpu_count=2, gpu_memory_mib=24576)


def test_docker_run_is_read_like_docker_reads_it(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# secrets\nVLLM_API_KEY=k=1\n")
    line = "-d --rm --init --gpus all --ipc=host --name e -p 127.0.0.1:9001:8000/tcp -e A=1"
    line += f" -e HOME -eB=2 --env-file {tmp_path}/env"
    line += " --ulimit memlock=-1 -v /host/cache:/root/.cache:ro --mount type=bind,source=/m,target=/model,readonly"

    request = read_run([*line.split(), "vllm/vllm-openai:v1", "/model/x", "--port", "8000"], {"HOME": "/h"})

    assert (request.detach, request.remove, request.has_gpus, request.name) == (True, True, True, "e")
    assert request.environment == {"A": "1", "HOME": "/h", "B": "2", "VLLM_API_KEY": "k=1"}
    assert request.ports == {"8000": 9001}
    assert request.command() == ["vllm", "serve", "/m/x", "--port", "8000"]


def test_an_entrypoint_replaces_the_images(tmp_path: Path) -> None:
    request = read_run(["--entrypoint", "bash", "vllm/vllm-openai", "-c", "true"], {})

    assert request.command() == ["bash", "-c", "true"]


@pytest.mark.parametrize("line", ["--name", "-d --rm", "--env-file /none image"])
def test_docker_refuses_what_is_incomplete(line: str) -> None:
    with pytest.raises(UsageError):
        read_run(line.split(), {})


def test_vllm_takes_its_own_command_line() -> None:
    words = ["Qwen/x", "--served-model-name", "mine", "other", "--port=8001", "--enforce-eager", "--runner", "pooling"]

    options = vllm.read_options(words, {"VLLM_API_KEY": "k", vllm.PORT_MAP: '{"8001": 9001}'})

    assert (options.model, options.served_name, options.port, options.api_key) == ("Qwen/x", "mine", 9001, "k")
    assert options.pooling
    assert vllm.read_options(["--model", "m"], {}).model == "m"


def test_sshd_reads_joined_flags_and_is_strict_about_its_host_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o644)
    words = f"-De -f /dev/null -p22 -h {key} -o AuthorizedKeysFile={tmp_path}/keys -o StrictModes=no".split()

    options = sshd.read_options(words)

    assert (options.foreground, options.port, options.authorized_keys) == (True, 22, f"{tmp_path}/keys")
    with pytest.raises(sshd.Complaint, match="no hostkeys available"):
        sshd.choose_host_key(options)
    key.chmod(0o600)
    assert sshd.choose_host_key(options) == key
    with pytest.raises(sshd.Complaint, match="requires an argument"):
        sshd.read_options(["-p"])


def test_sudo_gives_a_fresh_environment_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASEHOLD_MACHINE_FOLDER", "/m")
    environment = {"PATH": "/p", "HOME": "/home", "SECRET": "s", "LEASEHOLD_MACHINE_ID": "i", "USER": "ubuntu"}

    keep_all, kept, extra, command = sudo.read_arguments(["-n", "-u", "root", "A=1", "--", "docker", "ps", "-n"])

    assert (keep_all, kept, extra, command) == (False, [], {"A": "1"}, ["docker", "ps", "-n"])
    fresh = sudo.make_environment(environment, keep_all=False, kept=[])
    assert "SECRET" not in fresh and fresh["HOME"] == "/m/root" and fresh["LEASEHOLD_MACHINE_ID"] == "i"
    assert sudo.make_environment(environment, keep_all=True, kept=[])["SECRET"] == "s"
    assert sudo.read_arguments(["-nE", "env"])[0]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ("--query-gpu=name,memory.total --format=csv,noheader", "NVIDIA A10, 24576 MiB\n" * 2),
        ("--query-gpu=memory.total --format=csv,noheader,nounits", "24576\n" * 2),
        ("--query-gpu=index,unheard.of --format=csv", "index, unheard.of\n0, [Not Supported]\n1, [Not Supported]\n"),
    ],
)
def test_nvidia_smi_answers_for_every_gpu(arguments: str, answer: str) -> None:
    assert nvidia_smi.answer(MACHINE, arguments.split()) == answer


def test_nvidia_smi_lists_gpus() -> None:
    assert nvidia_smi.answer(MACHINE, ["-L"]).count("NVIDIA A10") == 2


@pytest.mark.parametrize(
    ("config", "argv"),
    [
        ({"image": "runpod/pytorch"}, ["/start.sh"]),
        ({"image": "runpod/pytorch", "cmd": ["a"]}, ["a"]),
        ({"image": "vllm/vllm-openai", "cmd": ["--model", "m"]}, ["vllm", "serve", "--model", "m"]),
        ({"image": "vllm/vllm-openai", "entrypoint": ["bash", "-c"], "cmd": ["a b"]}, ["bash", "-c", "a b"]),
        ({"image": "vllm/vllm-openai", "args": '{"entrypoint":["bash"],"cmd":["-c","a"]}'}, ["bash", "-c", "a"]),
        ({"image": "ubuntu", "args": "echo 'a b'"}, ["echo", "a b"]),
        ({"image": "ubuntu", "entrypoint": [], "cmd": ["true"]}, ["true"]),
    ],
)
def test_a_containers_first_process_follows_dockers_rules(config: dict[str, object], argv: list[str]) -> None:
    assert make_argv(config) == argv


def test_cloud_init_takes_lists_and_texts_and_scripts() -> None:
    data = parse_user_data(
        "#cloud-config\nruncmd:\n  - echo a | cat\n  - [echo, 'b c']\nssh_keys: {ed25519_private: KEY}\n"
    )

    assert data.commands == ("echo a | cat", "echo 'b c'") and data.host_private_key == "KEY"
    assert parse_user_data("#!/bin/sh\ntrue\n").commands == ("#!/bin/sh\ntrue\n",)
    assert parse_user_data("") == UserData()
    with pytest.raises(ValueError, match="YAML"):
        parse_user_data("#cloud-config\n{a: [")


def test_cloud_init_writes_nothing_outside_the_machine() -> None:
    folder = Path("/m")

    assert locate(folder, "/home/ubuntu/x") == Path("/m/home/x")
    assert locate(folder, "/etc/ssh/key") == Path("/m/files/etc/ssh/key")
    assert locate(folder, "/home/ubuntu/../../etc/passwd") == Path("/m/files/etc/passwd")


def test_graphql_input_is_read_from_the_text_or_a_variable() -> None:
    text = 'mutation { podTerminate(input: {podId: "a b", count: 2, tags: [ONE, "two"], on: true}) }'

    assert find_operation(text, ["pod", "podTerminate"]) == "podTerminate"
    assert read_input(text, "podTerminate", {}) == {"podId": "a b", "count": 2, "tags": ["ONE", "two"], "on": True}
    assert read_input("query Q { pod(input: $in) { id } }", "pod", {"in": {"podId": "x"}}) == {"podId": "x"}
    assert find_operation("query { podcast }", ["pod"]) is None
