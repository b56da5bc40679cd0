"""Starts a machine on this computer: its folder, then its detached keeper. Called by LocalCloud and the emulators."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import msgspec

from providers.local.environment import PROJECT_ROOT, make_keeper_environment
from providers.local.folder import MachineSpec, prepare_folder, remove_folder, update_record
from providers.local.processes import get_start_time

_SPAWN_TIMEOUT_S = 10.0
# The shell ends at once, so that the keeper is nobody's child here: it leaves no zombie, and nothing waits for it. Only
# the pid goes through the pipe; the keeper itself gets the boot log.
_SPAWN = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


class LocalMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that has been started; it is ready when describe_machine says so."""

    id: str
    name: str
    folder: Path
    pid: int


def start_machine(root: Path, spec: MachineSpec) -> LocalMachine:
    """Start a machine and return at once, with its pid on record.

    Whenever this is killed, what it leaves is found by its name (the record or the mark says it) or is no machine yet.
    Raises FileExistsError when root has a machine of that id, OSError when the folder or the process cannot be made.
    """
    root = root.resolve()
    folder = prepare_folder(root, spec)
    try:
        write_commands(folder, spec)
        pid = spawn_keeper(folder, spec)
        update_record(folder, pid=pid, process_started_at=get_start_time(pid))
    except BaseException:
        # A keeper that has started already ends itself when it misses its folder.
        remove_folder(folder)
        raise
    return LocalMachine(id=spec.id, name=spec.name, folder=folder, pid=pid)


def spawn_keeper(folder: Path, spec: MachineSpec) -> int:
    """Start the keeper in a session of its own, with nothing of ours but a boot log; returns its pid."""
    keeper = [sys.executable, "-P", "-s", "-m", "providers.local.machine", str(folder)]
    (folder / "boot.log").touch(mode=0o600)
    spawned = subprocess.run(
        ["/bin/sh", "-c", _SPAWN, "sh", str(folder / "boot.log"), *keeper],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=make_keeper_environment(folder, spec),
        cwd="/",
        close_fds=True,
        start_new_session=True,
        timeout=_SPAWN_TIMEOUT_S,
        check=True,
    )
    return int(spawned.stdout)


def write_commands(folder: Path, spec: MachineSpec) -> None:
    """Put on the machine's PATH what an image would have: the engine, and sshd for a start script."""
    write_command(folder / "bin" / "llamacpp-server", "runtime.llamacpp_server")
    if spec.start_script:
        write_command(folder / "bin" / "sshd", "providers.local.ssh", str(folder))


def write_command(path: Path, module: str, *arguments: str) -> None:
    words = ["env", f"PYTHONPATH={PROJECT_ROOT}", sys.executable, "-P", "-s", "-m", module, *arguments]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
