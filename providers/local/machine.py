"""A local machine's keeper: `python -m providers.local.machine FOLDER`, started by launch.py, is the machine.

    keeper ──┬── SSH server, or the start script that runs it     every process of the machine descends from the keeper
             └── watcher     ends what is left when the keeper itself is killed

The keeper ends the machine (all its processes, then its folder) at a SIGTERM and when the dead-man says so. When the
server or the start script ends by itself, the machine has failed: its other processes are ended, its folder stays for
its log.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from providers.cloud import Phase
from providers.local.boot_log import write_log
from providers.local.dead_man import DeadMan, read_beat
from providers.local.environment import make_environment
from providers.local.folder import MachineSpec, load_spec, remove_folder, update_record
from providers.local.processes import end_processes, get_start_time
from schemas.errors import LeaseholdError
from schemas.process_birth import read_birth

TICK_S = 1.0
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_CHILD_SUBREAPER = 36


def main(folder: Path) -> int:
    """Be the machine until it ends; 0 when nothing of it is left."""
    leave_launcher()
    try:
        spec = load_spec(folder)
    except LeaseholdError as error:
        write_log(str(error))
        return 1
    pid = os.getpid()
    started_at, birth = get_start_time(pid), read_birth(pid)
    if update_record(folder, pid=pid, process_started_at=started_at, process_birth=birth) is None:
        return 1
    write_log(f"machine {spec.id} ({spec.name}) starts with pid {pid}")
    adopt_orphans()
    return Keeper(folder, spec).run()


class Keeper:
    """Starts the watcher and the server, then waits for what happens."""

    def __init__(self, folder: Path, spec: MachineSpec) -> None:
        self._folder = folder
        self._spec = spec
        self._inode = folder.stat().st_ino
        self._end_signal = 0
        self._watcher = 0
        self._server = 0
        self._wake_reader, self._wake_writer = os.pipe()
        # Only the keeper holds the writing end: when it is closed, the keeper is dead.
        self._lifeline_reader, self._lifeline_writer = os.pipe()
        self._dead_man = DeadMan(
            expires_at=spec.expires_at,
            heartbeat_timeout_s=spec.heartbeat_timeout_s,
            now=time.time(),
            monotonic=time.monotonic(),
        )
        self._started_monotonic = time.monotonic()

    def run(self) -> int:
        self._listen_to_signals()
        self._watcher = self._fork(self._watch)
        self._server = self._fork(self._serve)
        while True:
            self._wait()
            self._reap()
            reason = self._find_reason_to_end()
            if reason:
                return self._end(reason)

    def _listen_to_signals(self) -> None:
        os.set_blocking(self._wake_writer, False)
        os.set_blocking(self._wake_reader, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in _END_SIGNALS:
            signal.signal(number, self._note_signal)

    def _note_signal(self, number: int, _frame: object) -> None:
        self._end_signal = number

    def _wait(self) -> None:
        """Until a signal comes, at most one tick."""
        select.select([self._wake_reader], [], [], TICK_S)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)

    def _reap(self) -> None:
        """Bury every child that has ended, adopted ones too; renew the watcher; note the end of the server."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid == self._watcher:
                    self._watcher = self._fork(self._watch)
                elif pid == self._server:
                    self._fail(os.waitstatus_to_exitcode(status))

    def _fail(self, code: int) -> None:
        what = "the start script" if self._spec.start_script else "the SSH server"
        detail = f"{what} ended by itself with status {code}"
        write_log(detail)
        self._note(phase="failed", detail=detail)
        self._server = 0
        end_processes(self._folder, spare={self._watcher})

    def _find_reason_to_end(self) -> str:
        if self._end_signal:
            return f"terminated by {signal.Signals(self._end_signal).name}"
        try:
            if self._folder.stat().st_ino != self._inode:
                return "its folder was replaced"
        except FileNotFoundError:
            return "its folder was removed"
        if self._spec.fault == "die" and time.monotonic() - self._started_monotonic > self._spec.fault_s:
            os.kill(os.getpid(), signal.SIGKILL)
        beat = read_beat(self._folder / "home")
        return self._dead_man.find_reason(now=time.time(), monotonic=time.monotonic(), beat_mtime_ns=beat)

    def _end(self, reason: str) -> int:
        write_log(f"the machine ends: {reason}")
        self._note(phase="ending", detail=reason)
        return end_machine(self._folder, spare=self._watcher, inode=self._inode)

    def _note(self, *, phase: Phase, detail: str) -> None:
        """Record how the machine is, for people; its end must not depend on a disk that may be full."""
        try:
            update_record(self._folder, phase=phase, detail=detail)
        except (OSError, LeaseholdError) as error:
            write_log(f"cannot record that the machine is {phase}: {error}")

    def _fork(self, run: Callable[[], int]) -> int:
        """Run a function in a child with its own process group; the keeper has no threads, so a fork is safe."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *_END_SIGNALS):
                signal.signal(number, signal.SIG_DFL)
            for descriptor in (self._wake_reader, self._wake_writer, self._lifeline_writer):
                os.close(descriptor)
            code = run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _watch(self) -> int:
        """Wait for the keeper's death, however it comes, then end what it left."""
        for number in _END_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.read(self._lifeline_reader, 1)
        return end_machine(self._folder, spare=0, inode=self._inode)

    def _serve(self) -> int:
        os.close(self._lifeline_reader)
        if self._spec.fault == "exit":
            write_log("the machine was asked to fail at its start")
            return 1
        while self._spec.fault == "hang":
            time.sleep(TICK_S)
        if self._spec.start_script:
            return run_start_script(self._folder, self._spec)
        # Imported here, in the server's process alone: it is most of a machine's start time and memory.
        from providers.local.ssh import run_server

        return run_server(self._folder)


def end_machine(folder: Path, *, spare: int, inode: int) -> int:
    """End every process of the machine, then remove its folder; 1 when a process cannot be ended.

    spare: the watcher, which is ended last, when it has nothing left to do; 0 when it is the watcher that calls.
    """
    survivors = end_processes(folder, spare={spare})
    if survivors:
        write_log(f"these processes did not end: {', '.join(str(process.pid) for process in survivors)}")
        return 1
    if spare:
        os.kill(spare, signal.SIGKILL)
        os.waitpid(spare, 0)
    with contextlib.suppress(FileNotFoundError):
        if folder.stat().st_ino == inode:
            remove_folder(folder)
    return 0


def run_start_script(folder: Path, spec: MachineSpec) -> int:
    """Become the start script, as a container's first process does."""
    environment = make_environment(folder, spec) | spec.machine_env
    # Python ignores this signal for itself, which a script would inherit.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.chdir(folder / "home")
    os.execve("/bin/sh", ["/bin/sh", "-c", spec.start_script], environment)


def leave_launcher() -> None:
    """Keep nothing of the process that launched us: session, signal dispositions, mask, working folder."""
    with contextlib.suppress(PermissionError):
        os.setsid()
    for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, *_END_SIGNALS):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    os.chdir("/")


def adopt_orphans() -> None:
    """On Linux, become the parent of the machine's processes that lose theirs: none escapes by clearing its marks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
