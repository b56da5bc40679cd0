"""Run a `command:remote:Command` over SSH with the connection's own key, password or agent; the servicer calls it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import asyncssh

from toolchain.command_plugin.inputs import CONNECTION_DEFAULTS
from toolchain.command_plugin.properties import Properties
from toolchain.command_plugin.recording import CommandFailed, Log, Recording

_FIRST_RETRY_S = 0.1
_RETRY_FACTOR = 1.5
_LONGEST_RETRY_S = 5.0
_UNLIMITED = -1
_LOGIN_TIMEOUT_S = 60.0  # where perDialTimeout is 0: a server that never finishes the handshake


async def run_remote(
    command: str, inputs: Properties, extra_env: dict[str, str], recording: Recording, log: Log
) -> None:
    connection = await _dial({**CONNECTION_DEFAULTS, **inputs["connection"]}, log)
    try:
        env = {**(inputs.get("environment") or {}), **extra_env}
        await _run(connection, command, inputs.get("stdin") or "", env, recording)
    except asyncssh.Error as error:
        raise recording.make_failure(f"ssh: {error.reason}", command) from error
    except asyncio.CancelledError:
        connection.abort()
        raise
    finally:
        connection.close()


async def _run(
    connection: asyncssh.SSHClientConnection, command: str, stdin: str, env: dict[str, str], recording: Recording
) -> None:
    process = await connection.create_process(
        command, env=env, encoding=None, stdin=asyncssh.PIPE if stdin else asyncssh.DEVNULL
    )
    try:
        await asyncio.gather(
            _feed(process, stdin),
            recording.follow("stdout", process.stdout),
            recording.follow("stderr", process.stderr),
            process.wait_closed(),
        )
    except asyncio.CancelledError:
        process.terminate()
        raise
    _raise_for_exit(process, command, recording)


async def _feed(process: asyncssh.SSHClientProcess[bytes], stdin: str) -> None:
    if not stdin:
        return
    try:
        process.stdin.write(stdin.encode())
        await process.stdin.drain()
        process.stdin.write_eof()
    except (BrokenPipeError, ConnectionResetError, OSError):
        pass  # a command may end without reading its input


def _raise_for_exit(process: asyncssh.SSHClientProcess[bytes], command: str, recording: Recording) -> None:
    if process.exit_signal is not None:
        raise recording.make_failure(f"Process exited with signal {process.exit_signal[0]}", command)
    if process.exit_status is None:
        raise recording.make_failure("wait: remote command exited without exit status or exit signal", command)
    if process.exit_status:
        raise recording.make_failure(f"Process exited with status {process.exit_status}", command)


async def _dial(connection: Properties, log: Log) -> asyncssh.SSHClientConnection:
    """Try until the limit is passed, as the real plugin does: one dial more than `dialErrorLimit`."""
    options = _make_options(connection)
    limit = int(connection["dialErrorLimit"])
    failed, wait_s = 0, _FIRST_RETRY_S
    while True:
        try:
            return await _dial_once(connection, options)
        except (OSError, asyncssh.Error, TimeoutError) as error:
            if limit > _UNLIMITED and failed >= limit:
                raise CommandFailed(f"after {failed} failed attempts: {_describe(error, connection)}") from error
        failed += 1
        await log(f"Dial {failed}/{'inf' if limit == _UNLIMITED else limit} failed: retrying")
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * _RETRY_FACTOR, _LONGEST_RETRY_S)


async def _dial_once(connection: Properties, options: dict[str, Any]) -> asyncssh.SSHClientConnection:
    timeout_s = float(connection["perDialTimeout"]) or None
    dial = asyncssh.connect(connection["host"], int(connection["port"]), **options)
    return await asyncio.wait_for(dial, timeout_s)


def _make_options(connection: Properties) -> dict[str, Any]:
    """Turn the connection into asyncssh's options; nothing of the user's own SSH configuration is read."""
    return {
        "username": connection["user"],
        "client_keys": _load_client_keys(connection),
        "password": connection.get("password"),
        "agent_path": connection.get("agentSocketPath") or os.environ.get("SSH_AUTH_SOCK"),
        "config": None,
        "login_timeout": _LOGIN_TIMEOUT_S,
        **_make_host_key_options(connection.get("hostKey")),
    }


def _load_client_keys(connection: Properties) -> list[asyncssh.SSHKey] | tuple[()]:
    if not connection.get("privateKey"):
        return ()
    try:
        return [asyncssh.import_private_key(connection["privateKey"], connection.get("privateKeyPassword"))]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise CommandFailed(f"ssh: connection.privateKey cannot be used: {error}") from error


def _make_host_key_options(host_key: str | None) -> dict[str, Any]:
    """Pin the one key; the others stay on offer, so that another key is a mismatch, not a failed negotiation."""
    if not host_key:
        return {"known_hosts": None}
    try:
        key = asyncssh.import_public_key(host_key)
    except asyncssh.KeyImportError as error:
        raise CommandFailed(f"ssh: connection.hostKey cannot be read: {error}") from error
    pinned = [algorithm.decode("ascii") for algorithm in key.sig_algorithms]
    others = [name for name in _HOST_KEY_ALGORITHMS if name not in pinned]
    return {"known_hosts": ([key], [], []), "server_host_key_algs": [*pinned, *others]}


_HOST_KEY_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-256",
    "rsa-sha2-512",
)


def _describe(error: Exception, connection: Properties) -> str:
    address = f"{connection['host']}:{int(connection['port'])}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return "ssh: handshake failed: ssh: host key mismatch"
    if isinstance(error, asyncssh.PermissionDenied):
        return "ssh: handshake failed: ssh: unable to authenticate, no supported methods remain"
    if isinstance(error, asyncssh.Error):
        return f"ssh: handshake failed: {error.reason}"
    if isinstance(error, TimeoutError):
        return f"dial tcp {address}: i/o timeout"
    return f"dial tcp {address}: {_describe_os_error(error)}"


def _describe_os_error(error: Exception) -> str:
    """asyncio writes its own text over the system's: the number is what can be trusted."""
    number = getattr(error, "errno", None)
    return f"connect: {os.strerror(number).lower()}" if number and number > 0 else f"lookup: {error}"
