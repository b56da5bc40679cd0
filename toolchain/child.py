"""Run a set-up command quietly and keep what it printed; bootstrap and installer use it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolchain.failure import ToolchainError

_SHOWN_LINES = 15


class ChildFailed(ToolchainError):
    """The command ended with an error; `output` is all it printed."""

    def __init__(self, what: str, output: str) -> None:
        tail = "\n".join(f"    {line}" for line in output.splitlines()[-_SHOWN_LINES:])
        super().__init__(f"{what}; it said:\n{tail}" if tail else what)
        self.output = output


def run_child(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Return what the command printed; it runs in a group of its own that is killed when we stop waiting for it."""
    name = Path(argv[0]).name
    try:
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            process_group=0,
        )
    except OSError as error:
        raise ToolchainError(f"{name} cannot be started: {error.strerror or error}") from error
    try:
        output = process.communicate(timeout=timeout_s)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        _kill_group(process)
        raise ToolchainError(f"{name} did not end within {timeout_s:.0f} s and was stopped") from None
    except BaseException:
        _kill_group(process)
        raise
    if process.returncode:
        raise ChildFailed(f"{name} failed with exit code {process.returncode}", output)
    return output


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
