"""Looks after the machines of a live run: replaces them, bounds what booting may cost, chases strays. Called by the life cycle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from providers.clock import SystemClock
from providers.lease.strays import end_strays, may_have_strays
from providers.lease.termination import give_back, retry_unconfirmed
from providers.open_clouds import choose_waits, open_clouds
from schemas.events import append_event
from schemas.failure import read_failures
from stacks.launch.engine_script import GPU_CHECK_FAILED
from stacks.lifecycle.machine_watch import MachineWatch
from stacks.lifecycle.reconcile import choose_replacements
from stacks.planning.plan import Plan
from stacks.run_folder import RunFolder
from stacks.runs.attempts import Attempt, load_attempts, save_attempts
from stacks.runs.ledger import LedgerEntry, read_joined, read_ledger, sum_usd
from stacks.runs.run_status import read_progress
from stacks.stack_call import ResourceFailure

_CHASE_EVERY_S = 60.0


class MachineCare:
    """Remembers which machines died and when strays were last looked for."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.watch = MachineWatch(folder)
        self.next_chase = time.monotonic() + _CHASE_EVERY_S

    def count_alive(self) -> int:
        """Machines that have joined and are not known to be dead."""
        joined = read_joined(self.folder)
        return len({record.index for record in joined} - self.watch.find_dead(joined, read_progress(self.folder)))

    def find_replacements(self, failures: Sequence[ResourceFailure]) -> dict[int, Attempt]:
        """New attempts for machines that failed in the last `up` or died since, within the limits."""
        dead = self.watch.find_dead(read_joined(self.folder), read_progress(self.folder))
        return choose_replacements(
            self.plan,
            attempts=load_attempts(self.folder.attempts),
            ledger=read_ledger(self.folder),
            failed_to_boot=self._find_failed_boots(failures) - dead,
            died=dead,
            now=time.time(),
        )

    def replace(self, replacements: Mapping[int, Attempt]) -> None:
        """Write the new attempts down, for the next `up` to act on."""
        save_attempts(self.folder.attempts, {**load_attempts(self.folder.attempts), **replacements})
        for index in replacements:
            append_event(self.folder.events, "planner", "machine_replaced", f"machine {index} is replaced", index=index)
        self.watch.forget(replacements)

    def bound_boot_money(self, ledger: Sequence[LedgerEntry]) -> None:
        """End machines that never worked once they have cost limits.boot_usd together."""
        limit = self.plan.job.limits.boot_usd
        if limit is None:
            return
        idle = [entry for entry in ledger if entry.joined_at is None]
        if sum_usd(idle, time.time()) < limit:
            return
        booting = [entry for entry in idle if entry.gone_at is None]
        if booting:
            text = f"machines that never worked have cost limits.boot_usd ({limit:.2f} USD); ending them"
            append_event(self.folder.events, "planner", "boot_usd_used_up", text)
            give_back_machines(self.folder, booting)

    def chase_strays(self) -> None:
        """Now and then end what unclear creates made after all, and ask again for what was not seen to go."""
        if time.monotonic() < self.next_chase:
            return
        self.next_chase = time.monotonic() + _CHASE_EVERY_S
        if not may_have_strays(self.folder.root):
            return
        clouds, waits = open_clouds(self.plan.clouds), choose_waits(self.plan.clouds)
        clock, settle_s = SystemClock(), self.plan.settle_s
        end_strays(self.folder.root, clouds, clock=clock, settle_s=settle_s, on_event=self._note, waits=waits)
        retry_unconfirmed(self.folder.root, clouds, clock=clock, deadline_s=waits.poll_s, on_event=self._note)

    def _find_failed_boots(self, failures: Sequence[ResourceFailure]) -> set[int]:
        """Indexes whose machine booted badly: for an engine that fails on a good machine no other machine helps."""
        attempts = load_attempts(self.folder.attempts)
        joined = {record.index for record in read_joined(self.folder)}
        failed = {
            failure.index
            for failure in read_failures(self.folder.failures)
            if failure.step == "endpoint" and failure.attempt == attempts.get(failure.index, Attempt()).attempt
        }
        engines = [each for each in failures if each.name.startswith("engine-") and each.status == GPU_CHECK_FAILED]
        return (failed | {int(each.name.removeprefix("engine-")) for each in engines}) - joined

    def _note(self, event: str, message: str, data: dict[str, Any]) -> None:
        _note(self.folder, event, message, data)


def give_back_machines(folder: RunFolder, entries: Sequence[LedgerEntry]) -> None:
    """Terminate machines, each within a short limit; what is not seen to go is on the unconfirmed list."""
    clouds = open_clouds(dict.fromkeys(entry.cloud for entry in entries))
    for entry in entries:
        give_back(
            folder.root,
            cloud=clouds[entry.cloud],
            cloud_name=entry.cloud,
            id=entry.id,
            name=entry.name,
            price_usd_per_hour=entry.price_usd_per_hour,
            clock=SystemClock(),
            poll_s=choose_waits([entry.cloud]).poll_s,
            on_event=lambda event, message, data: _note(folder, event, message, data),
        )


def _note(folder: RunFolder, event: str, message: str, data: Mapping[str, Any]) -> None:
    append_event(folder.events, "cloud", event, message, **data)
