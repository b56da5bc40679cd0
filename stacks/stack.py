"""A run's Pulumi stack through Pulumi's own command line: init, up, refresh, destroy. Called by the life cycle and `release`.

Every call runs in a session of its own, so that what a kill leaves behind can be found and ended by process id.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from schemas.errors import CloudError, LeaseholdError
from schemas.files import replace_file
from stacks.run_folder import PROJECT, prepare_home
from stacks.stack_call import StackCall
from toolchain.pulumi_cli import HOST_PYTHON, find_pulumi, pulumi_environment

PROJECT_NAME = "leasehold"
LIFECYCLE_MARK = "LEASEHOLD_LIFECYCLE"
_UNSET_WHEN_EMPTY = ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
_LOCKED = re.compile(
    r"currently locked by .*created by (?P<username>[^\s@]*)@(?P<hostname>\S+) \(pid (?P<pid>\d+)\) at (?P<timestamp>\S+)",
    re.DOTALL,
)


def make_stack_environment(home: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `pulumi` works on our stacks: toolchain, state and passphrase, unless the user set their own."""
    pulumi = find_pulumi()
    if pulumi is None:
        raise LeaseholdError("Pulumi is not there any more", fix="Run ./inv doctor, which brings it back.")
    # In a workflow a secret or a variable that is not set comes as an empty one.
    given = {name: value for name, value in base.items() if value or name not in _UNSET_WHEN_EMPTY}
    environment = {**given, **pulumi_environment(pulumi), "LEASEHOLD_HOME": str(home)}
    if "PULUMI_BACKEND_URL" not in environment and not _is_logged_in(environment):
        environment["PULUMI_BACKEND_URL"] = f"file://{home / 'state'}"
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environment.keys():
        environment["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(home / "passphrase")
    environment.setdefault("PULUMI_CONTINUE_ON_ERROR", "true")
    # The engine's event log, from which failures are read, is an option of the debugging kind.
    environment["PULUMI_DEBUG_COMMANDS"] = "true"
    return environment


def warn_of_own_passphrase(environ: Mapping[str, str]) -> str:
    """What to tell of a state that others can reach and not read, since only this computer has its passphrase; or ""."""
    backend = environ.get("PULUMI_BACKEND_URL", "")
    is_shared = "://" in backend and not backend.startswith(("file://", "http://", "https://"))
    if not is_shared or environ.get("PULUMI_CONFIG_PASSPHRASE") or environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        return ""
    return (
        f"only this computer can read the state in {backend.partition('?')[0]}, by a passphrase of its own; for others to "
        "release its runs, set PULUMI_CONFIG_PASSPHRASE, the same everywhere"
    )


def _is_logged_in(environment: Mapping[str, str]) -> bool:
    folder = Path(environment.get("PULUMI_HOME") or Path.home() / ".pulumi")
    try:
        return bool(json.loads((folder / "credentials.json").read_bytes()).get("current"))
    except (OSError, ValueError, AttributeError):
        return False


class Stack:
    """The stack of one run; Pulumi's output is in the run's folder."""

    def __init__(self, run: str, folder: Path, home: Path, environment: Mapping[str, str]) -> None:
        self.run = run
        self.folder = folder
        self.home = home
        self.environment = make_stack_environment(home, environment)
        self.environment.setdefault("PULUMI_PYTHON_CMD", str(HOST_PYTHON))
        prepare_home(home)
        self.project = prepare_project(home)

    def init(self) -> None:
        """Make the stack; one of that name that is there already is used."""
        self._run(["stack", "init", self.run, "--no-select"], allowed=("already exists",))

    def start_up(self, parallel: int, config: Mapping[str, str]) -> StackCall:
        """Bring the stack up, with this configuration, which it keeps."""
        pairs = [part for key, value in config.items() for part in ("--config", f"{PROJECT_NAME}:{key}={value}")]
        flags = ["--yes", "--skip-preview", "--continue-on-error", "--parallel", str(parallel)]
        return self._start(["up", *flags, *pairs])

    def start_destroy(self, *, remove: bool) -> StackCall:
        flags = ["--remove"] if remove else []
        return self._start(["destroy", "--yes", "--skip-preview", "--continue-on-error", "--parallel", "64", *flags])

    def exists(self) -> bool:
        """Whether the backend knows the stack. Pulumi, which takes a while, is asked only where its file is not seen."""
        state = self.home / "state"
        if self.environment.get("PULUMI_BACKEND_URL") == f"file://{state}":
            file = state / ".pulumi" / "stacks" / PROJECT_NAME / f"{self.run}.json"
            if file.exists():
                return True
        listed = self._run(["stack", "ls", "--json", "--project", PROJECT_NAME])
        return any(each["name"].rsplit("/", 1)[-1] == self.run for each in json.loads(listed or "[]"))

    def export(self) -> dict[str, Any]:
        """The stack's state, secrets encrypted."""
        exported: dict[str, Any] = json.loads(self._run(["stack", "export", "--stack", self.run]))
        return exported

    def forget(self) -> None:
        """Remove the stack and its state without touching any resource: only after their absence was proven."""
        self._run(["stack", "rm", "--yes", "--force", "--stack", self.run], allowed=("no stack named",))

    def unlock(self) -> None:
        """Remove the stack's lock, whoever holds it: only after its holder was seen to be dead."""
        self._run(["cancel", "--yes", "--stack", self.run], allowed=("no stack named",))

    def find_lock(self) -> dict[str, Any] | None:
        """Who holds the file backend's lock: {pid, username, hostname, timestamp}; None when nobody does."""
        url = self.environment.get("PULUMI_BACKEND_URL", "")
        if not url.startswith("file://"):
            return None
        locks = Path(url.removeprefix("file://")) / ".pulumi" / "locks" / "organization" / PROJECT_NAME / self.run
        for path in sorted(locks.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                found: dict[str, Any] = json.loads(path.read_bytes())
                return found
        return None

    def clear_stale_lock(self, complaint: str = "") -> str | None:
        """Remove a lock whose process on this computer is dead and say so; None when there is none.

        complaint: what pulumi said of the lock, for backends whose locks cannot be looked at.
        Raises CloudError for a lock that a live process or another computer holds.
        """
        lock = parse_lock(complaint) or self.find_lock()
        if lock is None:
            return None
        pid, host = int(lock.get("pid", 0)), str(lock.get("hostname", ""))
        if host != socket.gethostname() or _is_lock_holder(pid, str(lock.get("timestamp", ""))):
            raise CloudError(
                f"Pulumi's lock on this stack is held by process {pid} on {host} (since {lock.get('timestamp', '?')})",
                where=self.run,
                fix=f"Let it finish or end it; to release the machines all the same: ./inv release {self.run} --force",
            )
        self.unlock()
        return f"removed the lock that process {pid} left on this stack when it died"

    def _run(self, arguments: list[str], *, allowed: tuple[str, ...] = (), timeout_s: float = 120) -> str:
        full = [*arguments, "--non-interactive"]
        try:
            done = subprocess.run(
                ["pulumi", *full],
                env=self.environment,
                cwd=self.project,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise LeaseholdError(f"`pulumi {arguments[0]}` took more than {timeout_s:.0f} s", where=self.run) from error
        if done.returncode != 0 and not any(words in done.stderr for words in allowed):
            last = (done.stderr or done.stdout).strip()[-2000:]
            raise LeaseholdError(f"`pulumi {' '.join(arguments[:2])}` failed: {last}", where=self.run)
        return done.stdout

    def _start(self, arguments: list[str]) -> StackCall:
        event_log = self.folder / f"pulumi-{arguments[0]}-{time.time_ns()}.events"
        common = ["--stack", self.run, "--non-interactive", "--color", "never", "--suppress-progress"]
        common += ["--suppress-outputs", "--event-log", str(event_log)]
        log = self.folder / "pulumi.log"
        return StackCall([*arguments, *common], self.environment, self.project, log, event_log)


def parse_lock(complaint: str) -> dict[str, Any] | None:
    """Who holds a lock, as pulumi's refusal names it: {pid, username, hostname, timestamp}; None when it names nobody."""
    found = _LOCKED.search(complaint)
    return {**found.groupdict(), "pid": int(found["pid"])} if found else None


def prepare_project(home: Path) -> Path:
    """The folder where `pulumi` runs: the checkout, or for another home one that keeps its stacks' files there."""
    if home == PROJECT / ".leasehold":
        return PROJECT
    project = home / "project"
    project.mkdir(exist_ok=True)
    text = (PROJECT / "Pulumi.yaml").read_text().replace(".leasehold/stacks", str(home / "stacks"))
    replace_file(project / "Pulumi.yaml", text.encode())
    link = project / "stacks"
    if not link.is_symlink():
        with contextlib.suppress(FileExistsError):
            link.symlink_to(PROJECT / "stacks")
    return project


def _is_lock_holder(pid: int, locked_at: str) -> bool:
    """Whether the process that made a lock still runs: a zombie is dead, and one that began later is somebody else.

    Any `pulumi` counts, since a clock that was set meanwhile makes an old process look younger than its lock.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.name() == "pulumi":
            return True
        return process.create_time() < datetime.datetime.fromisoformat(locked_at).timestamp() + 2
    except psutil.NoSuchProcess:
        return False
    except ValueError:
        return True
