"""Starts `up`, and again when Pulumi or one of its processes was killed under it. Called by the life cycle.

Nothing is made twice by that: a machine's create settles first what earlier creates of its index have made, an open lease
is taken as it is, and the scripts of Dispatch, Engine and Join are safe to run again.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence

from schemas.events import append_event
from stacks.run_folder import RunFolder
from stacks.stack import Stack, parse_lock
from stacks.stack_call import ResourceFailure, StackCall

# Whatever kills it may go on killing: then the run ends, and everything is given back.
FURTHER_TRIES = 2
# What Pulumi says of a resource whose provider or plugin died, and of a program that a signal ended. A failure of ours has
# words of its own.
_DEATH = re.compile(
    r"error reading from server: |transport is closing|transport: Error while dialing"
    r"|program exited with non-zero exit code: -1$"
)


class UpCare:
    """Remembers how often `up` was cut off. on_call hears of each call, so that a later command can end it."""

    def __init__(
        self,
        folder: RunFolder,
        stack: Stack,
        *,
        parallel: int,
        config: Mapping[str, str],
        on_call: Callable[[StackCall], None],
    ) -> None:
        self.folder = folder
        self.stack = stack
        self.parallel = parallel
        self.config = config
        self.on_call = on_call
        self.tries_left = FURTHER_TRIES
        self.killed: int | None = None

    def start(self) -> StackCall:
        call = self.stack.start_up(self.parallel, self.config)
        self.on_call(call)
        return call

    def is_due_again(self, call: StackCall, failures: Sequence[ResourceFailure]) -> bool:
        """Whether a call that has ended was cut off by a death, and there is a try left; or found the lock of the one before."""
        if self._is_own_lock(failures):
            return True
        return self.tries_left > 0 and find_death(call.process.returncode, failures) != ""

    def start_again(self, call: StackCall, failures: Sequence[ResourceFailure]) -> StackCall:
        """End what the killed call left at work, clear its lock, and bring the rest up. Raises CloudError where somebody
        else holds the lock."""
        call.end()
        if self._is_own_lock(failures):
            # A backend such as S3 tells of its lock only now.
            death, self.killed = "its last call's lock was still there", None
        else:
            self.tries_left -= 1
            death, self.killed = find_death(call.process.returncode, failures), call.process.pid
        notice = self.stack.clear_stale_lock("\n".join(each.message for each in failures))
        text = f"`pulumi up` was cut off ({death}); starting it again{f'; {notice}' if notice else ''}"
        append_event(self.folder.events, "planner", "up_restarted", text, tries_left=self.tries_left)
        return self.start()

    def _is_own_lock(self, failures: Sequence[ResourceFailure]) -> bool:
        """Whether a call was refused for the lock that the call before it left when it was killed, and nobody else's."""
        lock = parse_lock("\n".join(each.message for each in failures))
        return lock is not None and (lock["pid"], lock["hostname"]) == (self.killed, socket.gethostname())


def find_death(returncode: int | None, failures: Sequence[ResourceFailure]) -> str:
    """What died under an `up`, in words; "" when it ended by itself."""
    if returncode is not None and returncode < 0:
        return f"Pulumi itself was killed by signal {-returncode}"
    dead = next((each for each in failures if _DEATH.search(each.message)), None)
    if dead is None:
        return ""
    return f"a process that worked on {dead.name} died" if dead.name else "the process of its program died"
