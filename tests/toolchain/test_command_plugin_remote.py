"""The stand-in for the `command` plugin, remote commands, through the real Pulumi engine and a real SSH server."""

from __future__ import annotations

import signal
import socket
from typing import Any

import asyncssh
import pytest

from tests.toolchain.processes import is_alive, read_pid, wait_until

pytestmark = pytest.mark.engine


def remote(connection: dict[str, Any], /, **inputs: Any) -> dict[str, Any]:
    return {"name": "one", "inputs": {"connection": connection, **inputs}}


def test_a_command_runs_there_with_its_stdin_and_its_output_comes_back(stack, ssh_server):
    result = stack.up(remote(ssh_server.connection(), create="cat; echo $SSH_COLOUR; echo err >&2", stdin="typed\n"))

    assert result.returncode == 0, result.stdout
    assert stack.outputs()["one"] == {"stdout": "typed\n", "stderr": "err"}


def test_the_environment_is_sent_to_a_server_that_accepts_it(stack, ssh_server):
    stack.up(remote(ssh_server.connection(), create="echo $COLOUR", environment={"COLOUR": "green"}))

    assert stack.outputs()["one"]["stdout"] == "green"


def test_a_failing_command_shows_its_exit_code_and_its_output(stack, ssh_server):
    result = stack.up(remote(ssh_server.connection(), create="echo reason >&2; exit 7"))

    assert result.returncode != 0
    assert "Process exited with status 7: running" in result.stdout
    assert "reason" in result.stdout


def test_another_host_key_is_refused_and_nothing_runs(stack, ssh_server, tmp_path):
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    result = stack.up(remote(ssh_server.connection(host_key=other), create=f"touch {tmp_path}/ran"))

    assert result.returncode != 0
    assert "ssh: handshake failed: ssh: host key mismatch" in result.stdout
    assert not (tmp_path / "ran").exists()


def test_a_host_key_of_another_type_is_a_mismatch_too(stack, ssh_server):
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key("openssh").decode()
    result = stack.up(remote(ssh_server.connection(host_key=other), create="true"))

    assert "ssh: handshake failed: ssh: host key mismatch" in result.stdout


def test_without_a_host_key_any_server_is_taken(stack, ssh_server):
    assert stack.up(remote(ssh_server.connection(host_key=None), create="true")).returncode == 0


def test_a_key_the_server_does_not_know_is_refused(stack, ssh_server):
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh").decode()
    result = stack.up(remote(ssh_server.connection(private_key=stranger), create="true"))

    assert "after 1 failed attempts: ssh: handshake failed: ssh: unable to authenticate" in result.stdout


def test_a_port_where_nobody_listens_is_tried_as_often_as_allowed(stack, ssh_server):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        result = stack.up(remote(ssh_server.connection(port=port, dial_error_limit=2), create="true"))

    assert f"after 2 failed attempts: dial tcp 127.0.0.1:{port}: connect: connection refused" in result.stdout


def test_a_server_that_never_answers_is_given_up_after_the_dial_timeout(stack, ssh_server):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        connection = ssh_server.connection(port=silent.getsockname()[1], dial_error_limit=0, per_dial_timeout=1)
        result = stack.up(remote(connection, create="true"))

    assert "i/o timeout" in result.stdout


def test_an_encrypted_private_key_is_opened_with_its_password(stack, ssh_server):
    key = ssh_server.client_key.export_private_key("pkcs8-pem", passphrase="open sesame").decode()
    connection = ssh_server.connection(private_key=key, private_key_password="open sesame")

    assert stack.up(remote(connection, create="true")).returncode == 0


def test_update_delete_and_previous_output_work_as_for_local_commands(stack, ssh_server, tmp_path):
    log = tmp_path / "log"
    delete = f'echo "deleted $PULUMI_COMMAND_STDOUT" >> {log}'
    stack.up(remote(ssh_server.connection(), create="echo one", delete=delete))
    stack.up(remote(ssh_server.connection(), create="echo two", delete=delete))
    assert stack.destroy().returncode == 0

    assert log.read_text() == "deleted two\n"


def test_the_connection_is_encrypted_in_the_state(stack, ssh_server):
    stack.up(remote(ssh_server.connection(), create="echo done"))

    body = ssh_server.client_key.export_private_key("openssh").decode().splitlines()[1]
    assert body not in stack.state()
    assert stack.outputs()["one"]["stdout"] == "done"


def test_an_interrupt_of_the_engine_ends_the_remote_command(stack, ssh_server, tmp_path):
    pid_file = tmp_path / "pid"
    stack.declare(remote(ssh_server.connection(), create=f"echo $$ > {pid_file}; exec sleep 60"))
    pulumi = stack.start("up", "--yes", "--skip-preview", "--non-interactive")
    pid = read_pid(pid_file)
    pulumi.send_signal(signal.SIGINT)
    output, _ = pulumi.communicate(timeout=10)

    assert pulumi.returncode != 0, output
    wait_until(lambda: not is_alive(pid), "the remote command's end")


def test_a_proxy_is_refused_in_words(stack, ssh_server):
    result = stack.up(remote(ssh_server.connection(proxy={"host": "127.0.0.1"}), create="true"))

    assert "proxy is not supported" in result.stdout + result.stderr
