"""One command or shell on a local machine: a process in its own session, joined to an SSH channel. Called by
local_ssh."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncssh

CHUNK = 65_536
# After a terminal's process has ended, how long its last output may take to come.
_TERMINAL_DRAIN_S = 0.5

Process = asyncssh.SSHServerProcess[bytes]
Child = asyncio.subprocess.Process


async def run_session(process: Process, environment: dict[str, str]) -> None:
    """Run what the client asked for and report how it ended; a client that goes away hangs it up, as sshd does."""
    if process.subsystem is not None:
        process.stderr.write(f"this machine has no subsystem {process.subsystem}\n".encode())
        process.exit(1)
        return
    try:
        if process.term_type is None:
            await run_on_pipes(process, environment)
        else:
            await run_on_terminal(process, environment | {"TERM": process.term_type})
    except OSError as error:
        process.stderr.write(f"cannot start it: {error}\n".encode())
        process.exit(126)


async def run_on_pipes(process: Process, environment: dict[str, str]) -> None:
    child = await start_child(process, environment, asyncio.subprocess.PIPE)
    stdin, stdout, stderr = child.stdin, child.stdout, child.stderr
    assert stdin and stdout and stderr

    async def write(data: bytes) -> None:
        stdin.write(data)
        await stdin.drain()

    feeding = asyncio.create_task(feed(process, child, write, stdin.close))
    out = asyncio.create_task(copy(lambda: stdout.read(CHUNK), process.stdout))
    err = asyncio.create_task(copy(lambda: stderr.read(CHUNK), process.stderr))
    await wait_for_end(process, child)
    # The exit status may only follow the last byte: the client stops reading at it.
    await asyncio.gather(out, err)
    feeding.cancel()
    report_end(process, child)


async def run_on_terminal(process: Process, environment: dict[str, str]) -> None:
    master, slave = os.openpty()
    try:
        os.set_blocking(master, False)
        resize(master, process.term_size)
        try:
            child = await start_child(process, environment, slave)
        finally:
            os.close(slave)
        feeding = asyncio.create_task(feed(process, child, lambda data: write_terminal(master, data), None, master))
        output = asyncio.create_task(copy(lambda: read_terminal(master), process.stdout))
        await wait_for_end(process, child)
        await asyncio.wait([output], timeout=_TERMINAL_DRAIN_S)
        for task in (feeding, output):
            task.cancel()
        await asyncio.gather(feeding, output, return_exceptions=True)
        report_end(process, child)
    finally:
        os.close(master)


async def start_child(process: Process, environment: dict[str, str], stream: int) -> Child:
    """Start the command, or a shell when there is none, as the leader of a session (and of the terminal, if any)."""
    on_terminal = process.term_type is not None
    if process.command is not None:
        arguments = ["/bin/sh", "-c", process.command]
    else:
        arguments = [environment["SHELL"], "-i"] if on_terminal else [environment["SHELL"]]
    return await asyncio.create_subprocess_exec(
        *arguments,
        stdin=stream,
        stdout=stream,
        stderr=stream,
        env=environment,
        cwd=Path(environment["HOME"]),
        start_new_session=True,
        preexec_fn=take_terminal if on_terminal else None,
    )


async def wait_for_end(process: Process, child: Child) -> None:
    """Wait until the child has ended; when the client goes away first, its process group gets SIGHUP."""
    ended = asyncio.create_task(child.wait())
    closed = asyncio.create_task(process.channel.wait_closed())
    await asyncio.wait({ended, closed}, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        signal_group(child, signal.SIGHUP)
    await ended
    closed.cancel()


async def feed(
    process: Process,
    child: Child,
    write: Callable[[bytes], Awaitable[None]],
    close: Callable[[], None] | None,
    terminal: int | None = None,
) -> None:
    """Pass the client's input and signals on, and then its end of file."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while True:
            try:
                data = await process.stdin.read(CHUNK)
                if not data:
                    break
                await write(data)
            except asyncssh.TerminalSizeChanged:
                if terminal is not None:
                    resize(terminal, process.term_size)
            except asyncssh.SignalReceived as received:
                signal_group(child, getattr(signal, f"SIG{received.signal}", signal.SIGTERM))
            except asyncssh.BreakReceived:
                continue
    if close is not None:
        close()


async def copy(read: Callable[[], Awaitable[bytes]], writer: asyncssh.SSHWriter[bytes]) -> None:
    """Copy to the end of file; when the client has gone, read on, so that the process is not held up by a full pipe."""
    client_is_there = True
    while data := await read():
        if client_is_there:
            try:
                writer.write(data)
                await writer.drain()
            except (OSError, asyncssh.Error):
                client_is_there = False


def report_end(process: Process, child: Child) -> None:
    status = child.returncode
    assert status is not None
    if process.channel.is_closing():
        return
    if status >= 0:
        process.exit(status)
    else:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))


def signal_group(child: Child, number: int) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


async def read_terminal(descriptor: int) -> bytes:
    """The next output of a terminal, b"" when all its processes have closed it (which Linux reports as an error)."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""


async def write_terminal(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            await asyncio.sleep(0.02)


def resize(descriptor: int, size: tuple[int, int, int, int]) -> None:
    columns, rows, x_pixels, y_pixels = size
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, x_pixels, y_pixels))


def take_terminal() -> None:
    """Make standard input the terminal that controls this session; runs in the child before exec."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
