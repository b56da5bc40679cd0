"""The real machines behind the emulated ones: local machines (real SSH servers) with the commands of a GPU host on their PATH.

Starting and ending happen in the background; a watchdog process ends all of them when the emulator itself is killed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from providers.emulators.machines.ending import end_all
from providers.emulators.machines.machine_file import MachineFile, load_machine_file, write_machine_file
from providers.emulators.machines.shim_folder import has_real_sshd, write_shims
from providers.local.environment import PROJECT_ROOT
from providers.local.folder import MachineSpec, load_record, prepare_folder, remove_folder, update_record
from providers.local.launch import spawn_keeper, write_command
from providers.local.listing import terminate_machine
from providers.local.processes import find_keeper, get_start_time

# Far away: an emulated machine ends when the client's own measures end it, never by the local cloud's dead-man.
LIFETIME_S = 30 * 86_400
_WORKERS = 4


class MachinePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. prepare, if given, fills the new folder (its path is the argument) before anything runs in it."""

    spec: MachineSpec
    file: MachineFile
    has_sshd: bool = True
    prepare: Callable[[Path], None] | None = None

    def __repr__(self) -> str:
        return f"MachinePlan(spec={self.spec!r})"


class Machines:
    """Machine ids are the emulated cloud's own. Without real machines every call does nothing."""

    def __init__(self, state_dir: Path, *, is_real: bool) -> None:
        self.root = state_dir / "machines"
        self.shim_root = state_dir / "shims"
        self.is_real = is_real
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._started: set[str] = set()
        self._log_offsets: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="machines")
        self._watchdog: subprocess.Popen[bytes] | None = None
        if is_real:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_shims(self.shim_root)
            self._watchdog = start_watchdog(self.root)

    def start_soon(self, plan: MachinePlan) -> None:
        if self.is_real:
            self._run_soon(self._start(plan))

    def end_soon(self, machine_id: str) -> None:
        """End a machine's processes and remove its folder; one that was never started is fine."""
        if self.is_real:
            self._run_soon(self._end(machine_id))

    def has_ended(self, machine_id: str) -> bool:
        """Whether a machine that was started has ended by itself."""
        if machine_id not in self._started:
            return False
        record = load_record(self.root / machine_id)
        return record is None or record.phase in ("failed", "ending") or find_keeper(record) is None

    def read_new_log(self, machine_id: str) -> str:
        """What came to the machine's log since the last call."""
        try:
            with (self.root / machine_id / "boot.log").open("rb") as file:
                file.seek(self._log_offsets.get(machine_id, 0))
                data = file.read()
        except FileNotFoundError:
            return ""
        whole = data[: data.rfind(b"\n") + 1]
        self._log_offsets[machine_id] = self._log_offsets.get(machine_id, 0) + len(whole)
        return whole.decode("utf-8", "replace")

    def set_nvidia_smi(self, machine_id: str, fault: str) -> None:
        """Turn that knob of a machine that is there already."""
        folder = self.root / machine_id
        if self.is_real and folder.is_dir():
            write_machine_file(folder, msgspec.structs.replace(load_machine_file(folder), nvidia_smi=fault))
            install_nvidia_smi(folder, is_absent=fault == "absent")

    def run_soon(self, machine_id: str, action: Callable[[Path], None]) -> None:
        """Do something with the machine's folder once it has been started."""
        if self.is_real:
            self._run_soon(self._run_in_folder(machine_id, action))

    async def close(self) -> None:
        """End every machine; waits at most a few seconds."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.is_real:
            await asyncio.get_running_loop().run_in_executor(None, end_all, self.root)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            # A byte says that nothing is left to be done.
            self._watchdog.stdin.write(b".")
            self._watchdog.stdin.close()
            await asyncio.get_running_loop().run_in_executor(None, self._watchdog.wait)

    def _run_soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, plan: MachinePlan) -> None:
        async with self._locks[plan.spec.id]:
            self._log_offsets.pop(plan.spec.id, None)
            await asyncio.get_running_loop().run_in_executor(self._pool, start, self.root, plan)
            self._started.add(plan.spec.id)

    async def _end(self, machine_id: str) -> None:
        async with self._locks[machine_id]:
            self._started.discard(machine_id)
            await asyncio.get_running_loop().run_in_executor(self._pool, terminate_machine, self.root, machine_id)

    async def _run_in_folder(self, machine_id: str, action: Callable[[Path], None]) -> None:
        async with self._locks[machine_id]:
            is_there = machine_id in self._started
        # Not under the lock: an end must not wait for what runs in the machine, it ends that too.
        if is_there:
            await asyncio.get_running_loop().run_in_executor(self._pool, action, self.root / machine_id)


def start(root: Path, plan: MachinePlan) -> None:
    """What local_launch.start_machine does, with a folder of our making."""
    folder = prepare_folder(root.resolve(), plan.spec)
    try:
        write_machine_file(folder, plan.file)
        write_command(folder / "bin" / "llamacpp-server", "runtime.llamacpp_server")
        (folder / "tmp").mkdir(mode=0o700)
        (folder / "root").mkdir(mode=0o700)
        install_nvidia_smi(folder, is_absent=plan.file.nvidia_smi == "absent")
        # Where this computer has an sshd, no image can be shown without one: its start script would run the real one.
        if plan.has_sshd or (plan.spec.start_script and has_real_sshd()):
            install_sshd(folder)
        if plan.prepare is not None:
            plan.prepare(folder)
        pid = spawn_keeper(folder, plan.spec)
    except BaseException:
        remove_folder(folder)
        raise
    update_record(folder, pid=pid, process_started_at=get_start_time(pid))


def install_sshd(folder: Path) -> None:
    """Put sshd on the machine's PATH, as its image has it or apt-get brings it."""
    write_command(folder / "bin" / "sshd", "providers.emulators.shims.sshd")


def install_nvidia_smi(folder: Path, *, is_absent: bool) -> None:
    """Put nvidia-smi on the machine's PATH, or take it away."""
    path = folder / "bin" / "nvidia-smi"
    path.unlink(missing_ok=True)
    if not is_absent:
        write_command(path, "providers.emulators.shims.nvidia_smi")


def start_watchdog(root: Path) -> subprocess.Popen[bytes]:
    """Start the process that outlives a killed emulator for as long as it takes to end its machines."""
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", "providers.emulators.machines.watchdog", str(root.resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": str(PROJECT_ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
        cwd="/",
        start_new_session=True,
    )
