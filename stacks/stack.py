"""A run's Pulumi stack through Pulumi's own command line: init, up, refresh, destroy. Called by the life cycle and `release`.

Every call runs in a session of its own, so that what a kill leaves behind can be found and ended by process id.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from schemas.errors import CloudError, LeaseholdError
from schemas.files import replace_file
from schemas.process_birth import is_same_process, read_birth
from stacks.run_folder import PROJECT, prepare_home
from toolchain.pulumi_cli import HOST_PYTHON, find_pulumi, pulumi_environment

PROJECT_NAME = "leasehold"
PID_FILE = "pulumi.pid"
# The process writes down its own id before it becomes pulumi: no kill of ours can leave one that nobody knows.
_NOTE_AND_START = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec pulumi "$@"'
LIFECYCLE_MARK = "LEASEHOLD_LIFECYCLE"
_UNSET_WHEN_EMPTY = ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
# How the command plugin begins the error of a command: its exit status, then the whole script, quoted.
_FAILED_COMMAND = re.compile(r"(?:error: )?(?:Process exited with|exit) status (?P<status>\d+): running \"[^\n]*\":\n")

# What Amazon's library says of a service that sends no checksums, in the middle of everything.
_OF_THE_SDK = re.compile(r"SDK \d{4}/\d\d/\d\d [\d:]+ WARN ")

_LOCKED = re.compile(
    r"currently locked by .*created by (?P<username>[^\s@]*)@(?P<hostname>\S+) \(pid (?P<pid>\d+)\) at (?P<timestamp>\S+)",
    re.DOTALL,
)


class ResourceFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that Pulumi could not make or delete, with its last error text; status: exit code of its command or 0."""

    name: str
    type: str
    operation: str
    message: str
    status: int = 0


class ProcessMark(msgspec.Struct, frozen=True, kw_only=True):
    """A process that cannot be mistaken for a later one with the same id; started_at in seconds since 1970, birth as of
    schemas.process_birth."""

    pid: int
    started_at: float
    birth: str = ""


def mark_process(pid: int) -> ProcessMark:
    return ProcessMark(pid=pid, started_at=psutil.Process(pid).create_time(), birth=read_birth(pid))


def is_alive(mark: ProcessMark) -> bool:
    """Whether that very process still runs."""
    try:
        return _is_same(mark) and psutil.Process(mark.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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


class StackCall:
    """One `pulumi` command under way, with its log and the engine's events."""

    def __init__(
        self, arguments: list[str], environment: Mapping[str, str], project: Path, log: Path, event_log: Path
    ) -> None:
        self.event_log = event_log
        self.log = log
        with log.open("ab") as output:
            self._log_start = output.tell()
            output.write(f"$ pulumi {' '.join(arguments)}\n".encode())
            output.flush()
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", _NOTE_AND_START, str(log.with_name(PID_FILE)), *arguments],
                env=dict(environment),
                cwd=project,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.mark = mark_process(self.process.pid)

    def is_running(self) -> bool:
        return self.process.poll() is None

    def interrupt(self) -> None:
        """Ask the engine to stop (twice means at once); its process group hears it as from Ctrl-C."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGINT)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None when it still runs after timeout_s seconds."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kill what is left of the call, plugins and language host included, and reap it."""
        end_session(self.mark)
        self.process.wait(10)

    def failures(self) -> list[ResourceFailure]:
        """The resources that failed, from the engine's event log; when it says nothing, the end of what pulumi printed."""
        found = list(_read_failures(self.event_log))
        if found or not self.process.returncode:
            return found
        if self.process.returncode < 0:
            text = f"Pulumi itself was killed by signal {-self.process.returncode}"
            return [ResourceFailure(name="", type="", operation="", message=text)]
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        lines = [line for line in lines if not _OF_THE_SDK.match(line)]
        return [ResourceFailure(name="", type="", operation="", message="\n".join(lines[1:][-20:]))]


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


def end_session(mark: ProcessMark) -> int:
    """Kill every process of the session that mark leads, by id, and say how many; a session of a later process is others'."""
    if _is_reused(mark):
        return 0
    ended = 0
    for process in list(_session_members(mark)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            ended += 1
    return ended


def _is_reused(mark: ProcessMark) -> bool:
    """Whether the id went to another process, which it cannot while anybody of the session lives."""
    return psutil.pid_exists(mark.pid) and not _is_same(mark)


def _is_same(mark: ProcessMark) -> bool:
    return is_same_process(mark.pid, birth=mark.birth, started_at=mark.started_at)


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


def _session_members(mark: ProcessMark) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == mark.pid and process.pid != os.getpid():
                yield process


def _read_failures(event_log: Path) -> Iterator[ResourceFailure]:
    messages: dict[str, str] = {}
    failed: dict[str, tuple[str, str]] = {}
    for event in _read_engine_events(event_log):
        if (diagnostic := event.get("diagnosticEvent")) and diagnostic.get("severity") == "error":
            urn = diagnostic.get("urn", "")
            # After the program's own error Pulumi says once more, in general words, that the program failed.
            messages[urn] = diagnostic.get("message", "") if urn else messages.get(urn) or diagnostic.get("message", "")
        if failure := event.get("resOpFailedEvent"):
            metadata = failure.get("metadata", {})
            failed[metadata.get("urn", "")] = (metadata.get("type", ""), metadata.get("op", ""))
    if failed:
        # Without a resource: the program's traceback, which only repeats that a resource failed.
        messages.pop("", None)
    for urn in [*failed, *(each for each in messages if each not in failed)]:
        kind, operation = failed.get(urn, ("", ""))
        yield _make_failure(urn, kind, operation, messages.get(urn, ""))


def _make_failure(urn: str, kind: str, operation: str, text: str) -> ResourceFailure:
    """Our words out of Pulumi's: without its prefixes, and without the script that a failed command was given."""
    text = text.replace("<{%reset%}>", "").replace("Exception calling application: ", "").strip()
    if "Traceback (most recent call last)" in text:
        # Of the program, when its provider was killed under it: only the last line says what happened.
        text = text.splitlines()[-1]
    command = _FAILED_COMMAND.match(text)
    return ResourceFailure(
        name=urn.rsplit("::", 1)[-1],
        type=kind,
        operation=operation,
        message=text[command.end() :].strip() if command else text,
        status=int(command["status"]) if command else 0,
    )


def _read_engine_events(event_log: Path) -> Iterator[dict[str, Any]]:
    if not event_log.exists():
        return
    for line in event_log.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)
