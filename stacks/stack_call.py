"""One `pulumi` command that takes its time, in a session of its own: started, interrupted, ended, and why resources failed.

Made by the stack, watched by the life cycle and `release`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stacks.process_mark import end_session, mark_process

PID_FILE = "pulumi.pid"
# The process writes down its own id before it becomes pulumi: no kill of ours can leave one that nobody knows.
_NOTE_AND_START = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec pulumi "$@"'
# How the command plugin begins the error of a command: its exit status, then the whole script, quoted.
_FAILED_COMMAND = re.compile(r"(?:error: )?(?:Process exited with|exit) status (?P<status>\d+): running \"[^\n]*\":\n")

# What Amazon's library says of a service that sends no checksums, in the middle of everything.
_OF_THE_SDK = re.compile(r"SDK \d{4}/\d\d/\d\d [\d:]+ WARN ")


class ResourceFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that Pulumi could not make or delete, with its last error text; status: exit code of its command or 0."""

    name: str
    type: str
    operation: str
    message: str
    status: int = 0


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
