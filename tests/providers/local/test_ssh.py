"""A local machine's SSH server as OpenSSH's own client meets it."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest

pytestmark = pytest.mark.wire


def test_a_command_gets_its_input_and_both_outputs_come_back_with_the_exit_status(
    shared_local_bench: Any, local_machine: Any
) -> None:
    ended = shared_local_bench.ssh(local_machine, "cat; echo trouble >&2; exit 7", data=b"hello")

    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"hello", b"trouble\n")


def test_no_byte_of_a_long_output_is_lost(shared_local_bench: Any, local_machine: Any) -> None:
    ended = shared_local_bench.ssh(local_machine, "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 3")

    assert (ended.returncode, len(ended.stdout), len(ended.stderr)) == (3, 3_000_000, 1_000_000)


def test_a_client_that_reads_late_gets_every_byte_and_then_the_exit_status(
    shared_local_bench: Any, local_machine: Any
) -> None:
    command = [*shared_local_bench.make_ssh(local_machine), "head -c 4500000 /dev/zero; echo end; exit 9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        time.sleep(0.7)
        output = client.stdout.read()

    assert (client.returncode, len(output), output[-4:]) == (9, 4_500_004, b"end\n")


def test_what_a_command_left_running_may_still_write(shared_local_bench: Any, local_machine: Any) -> None:
    ended = shared_local_bench.ssh(local_machine, "(sleep 0.3; echo late) & echo early; exit 3")

    assert (ended.returncode, ended.stdout) == (3, b"early\nlate\n")


def test_short_outputs_at_exit_always_arrive(shared_local_bench: Any, local_machine: Any) -> None:
    master = start_master(shared_local_bench, local_machine)
    try:
        outputs = {run_through(master, "echo out; echo err >&2; exit 4") for _ in range(25)}
    finally:
        end_master(master)

    assert outputs == {(4, b"out\n", b"err\n")}


def test_a_long_input_arrives_whole_and_ends(shared_local_bench: Any, local_machine: Any) -> None:
    ended = shared_local_bench.ssh(local_machine, "wc -c", data=b"x" * 2_000_000)

    assert ended.stdout.strip() == b"2000000"


def test_a_command_that_a_signal_ends_is_a_failure(shared_local_bench: Any, local_machine: Any) -> None:
    assert shared_local_bench.ssh(local_machine, "kill -TERM $$").returncode == 255


def test_a_shell_without_a_terminal_reads_its_commands_from_standard_input(
    shared_local_bench: Any, local_machine: Any
) -> None:
    ended = subprocess.run(
        shared_local_bench.make_ssh(local_machine), input=b"echo $HOME; exit 6\n", capture_output=True, timeout=10
    )

    assert ended.returncode == 6
    assert ended.stdout.decode().strip() == str(shared_local_bench.root / local_machine.id / "home")


async def test_a_shell_on_a_terminal_has_a_terminal_of_the_right_size(
    shared_local_bench: Any, local_machine: Any
) -> None:
    async with (
        connect(shared_local_bench, local_machine) as connection,
        connection.create_process(term_type="xterm", term_size=(101, 31)) as shell,
    ):
        shell.stdin.write("tty; stty size; echo $TERM-$((40+2)); exit 5\n")
        ended = await shell.wait(timeout=10)

    assert ended.exit_status == 5
    assert "/dev/" in ended.stdout and "31 101" in ended.stdout and "xterm-42" in ended.stdout


async def test_a_signal_from_the_client_reaches_the_command(shared_local_bench: Any, local_machine: Any) -> None:
    async with (
        connect(shared_local_bench, local_machine) as connection,
        connection.create_process("trap 'echo got; exit 9' USR1; echo on; while :; do sleep 0.05; done") as command,
    ):
        assert await command.stdout.readline() == "on\n"
        command.send_signal("USR1")
        ended = await command.wait(timeout=10)

    assert (ended.exit_status, ended.stdout) == (9, "got\n")


def test_a_session_sees_its_machine_and_nothing_else(shared_local_bench: Any, local_machine: Any) -> None:
    seen = shared_local_bench.ssh(local_machine, "/usr/bin/env").stdout.decode()
    names = {line.split("=", 1)[0] for line in seen.splitlines()}
    values = dict(line.split("=", 1) for line in seen.splitlines())

    wanted = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG"}
    marks = {"LEASEHOLD_MACHINE_ID", "LEASEHOLD_MACHINE_NAME", "LEASEHOLD_MACHINE_FOLDER"}
    # The last four are set by shells themselves.
    assert wanted | marks <= names <= wanted | marks | {"PWD", "OLDPWD", "SHLVL", "_"}
    assert values["LEASEHOLD_MACHINE_ID"] == local_machine.id
    assert values["PATH"].startswith(f"{shared_local_bench.root}/{local_machine.id}/bin:")


def test_any_user_name_is_accepted(shared_local_bench: Any, local_machine: Any) -> None:
    arguments = shared_local_bench.make_ssh(local_machine)
    arguments[-1] = arguments[-1].replace("root@", "ubuntu@")
    ended = subprocess.run([*arguments, "echo $USER"], capture_output=True, timeout=10)

    assert ended.stdout == b"ubuntu\n"


def test_a_wrong_host_key_is_refused_by_the_client(shared_local_bench: Any, local_machine: Any) -> None:
    arguments = shared_local_bench.make_ssh(local_machine, host_key=shared_local_bench.public_key)
    ended = subprocess.run([*arguments, "echo reached"], capture_output=True, timeout=10)

    assert ended.returncode == 255
    assert b"reached" not in ended.stdout
    assert b"Host key verification failed" in ended.stderr


def test_a_wrong_client_key_is_refused_by_the_machine(
    shared_local_bench: Any, local_machine: Any, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(stranger))
    stranger.chmod(0o600)
    arguments = shared_local_bench.make_ssh(local_machine, key_file=stranger)
    ended = subprocess.run([*arguments, "echo reached"], capture_output=True, timeout=10)

    assert ended.returncode == 255
    assert ended.stdout == b""
    assert b"Permission denied (publickey)" in ended.stderr


def test_a_unix_socket_is_forwarded_to_a_port_of_the_machine(
    shared_local_bench: Any, local_machine: Any, echo_port: int
) -> None:
    path = shared_local_bench.folder / "0.sock"
    options = ["-N", "-L", f"{path}:127.0.0.1:{echo_port}", "-o", "ExitOnForwardFailure=yes"]
    options += ["-o", "StreamLocalBindUnlink=yes"]
    arguments = shared_local_bench.make_ssh(local_machine)
    with subprocess.Popen([*arguments[:-1], *options, arguments[-1]], stdin=subprocess.DEVNULL) as tunnel:
        try:
            shared_local_bench.wait_until(path.exists)
            answers = [talk(path, f"ping {number}".encode()) for number in range(3)]
        finally:
            tunnel.terminate()

    assert answers == [b"PING 0", b"PING 1", b"PING 2"]


async def test_only_this_computer_is_reached_through_a_machine(shared_local_bench: Any, local_machine: Any) -> None:
    async with connect(shared_local_bench, local_machine) as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match=r"only 127\.0\.0\.1"):
            await connection.open_connection("127.0.0.2", 80)


def test_a_client_that_goes_away_hangs_up_its_command_but_not_what_was_detached(
    shared_local_bench: Any, local_machine: Any, process_is_gone: Any
) -> None:
    engine = shared_local_bench.start_engine(local_machine)
    command = "echo $$; sleep 300; echo never"
    with subprocess.Popen([*shared_local_bench.make_ssh(local_machine), command], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        foreground = psutil.Process(int(client.stdout.readline()))
        client.kill()
    shared_local_bench.wait_until(lambda: process_is_gone(foreground))

    assert not process_is_gone(engine)


def test_forty_sessions_share_one_connection(shared_local_bench: Any, local_machine: Any) -> None:
    master = start_master(shared_local_bench, local_machine)
    try:
        clients = [subprocess.Popen([*master, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(40)]
        for client in clients:
            assert client.stdin is not None
            client.stdin.write(b"here")
        outputs = [client.communicate(timeout=20)[0] for client in clients]
    finally:
        end_master(master)

    assert outputs == [b"here"] * 40


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that answers in capitals, in place of an engine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_in_capitals, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=5)


def answer_in_capitals(server: socket.socket) -> None:
    while True:
        try:
            connection, _address = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(connection.recv(1000).upper())


def talk(path: Path, message: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(message)
        return client.recv(1000)


def connect(bench: Any, state: Any) -> Any:
    host_key = asyncssh.import_public_key(bench.host_public_key)
    return asyncssh.connect(
        "127.0.0.1",
        state.endpoint.port,
        username="root",
        client_keys=[bench.client_key],
        known_hosts=([host_key], [], []),
        config=None,
    )


def start_master(bench: Any, state: Any) -> list[str]:
    """One connection that many ssh calls share; returns the arguments that use it."""
    path = bench.folder / f"c{time.monotonic_ns()}"
    arguments = bench.make_ssh(state)
    master = [*arguments[:-1], "-o", f"ControlPath={path}", arguments[-1]]
    options = ["-M", "-N", "-f", "-o", "ControlPersist=20"]
    subprocess.run([*master[:-1], *options, master[-1]], check=True, timeout=10, stderr=subprocess.DEVNULL)
    return master


def run_through(master: list[str], command: str) -> tuple[int, bytes, bytes]:
    ended = subprocess.run([*master, command], capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
    return ended.returncode, ended.stdout, ended.stderr


def end_master(master: list[str]) -> None:
    subprocess.run([*master[:-1], "-O", "exit", master[-1]], check=False, timeout=10, capture_output=True)
