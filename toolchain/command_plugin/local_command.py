"""Run a `command:local:Command` in a process group of its own and end that group on a cancel; the servicer calls it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process

from toolchain.command_plugin.properties import Properties
from toolchain.command_plugin.recording import CommandFailed, Recording

_SHELL = ["/bin/sh", "-c"]
_GRACE_S = 1.0  # the engine kills a plugin 5 s after it asked it to end


async def run_local(command: str, inputs: Properties, extra_env: dict[str, str], recording: Recording) -> None:
    """Run to the end of the process and of its output; what it has moved to a session of its own is left alone."""
    stdin = (inputs.get("stdin") or "").encode()
    process = await _start(command, inputs, extra_env, takes_stdin=bool(stdin))
    try:
        await asyncio.gather(
            _feed(process, stdin),
            recording.follow("stdout", _stream(process.stdout)),
            recording.follow("stderr", _stream(process.stderr)),
            process.wait(),
        )
    except BaseException:
        await _end_group(process)
        raise
    if process.returncode:
        raise recording.make_failure(_describe_exit(process.returncode), command)


async def _start(command: str, inputs: Properties, extra_env: dict[str, str], *, takes_stdin: bool) -> Process:
    argv = [*(inputs.get("interpreter") or _SHELL), command]
    # A caller's own environment may say anything, but a value that is not text was refused by check.
    env = {**os.environ, **(inputs.get("environment") or {}), **extra_env}
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=PIPE if takes_stdin else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            cwd=inputs.get("dir") or None,
            env=env,
            process_group=0,
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{_lower_reason(error)}: running {argv[0]}") from error


async def _feed(process: Process, stdin: bytes) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(stdin)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # a command may end without reading its input
    finally:
        process.stdin.close()


async def _end_group(process: Process) -> None:
    """Ask, then kill; only while the leader still runs, or its number could belong to somebody else."""
    if process.returncode is not None:
        return
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(process.wait()), _GRACE_S)
    # The leader is gone or about to be: members of its group that did not listen keep the number taken.
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone is what we want
        os.killpg(group, number)


def _describe_exit(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    return f"signal: {signal.strsignal(-returncode) or -returncode}".lower()


def _lower_reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'fork/exec'}: {(error.strerror or str(error)).lower()}"
    return str(error)


def _stream(reader: asyncio.StreamReader | None) -> asyncio.StreamReader:
    assert reader is not None  # both streams were asked for as pipes
    return reader
