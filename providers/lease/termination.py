"""Giving machines back: ask, look until it is gone, and keep a list of those that could not be shown to be gone.

Called by Machine.delete, by acquisition for what it may not keep, and by the life cycle for the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from providers.clock import DEFAULT_WAITS, Clock, OnEvent, ignore_event
from providers.cloud import Cloud
from providers.lease.intents import Outcome, append_resolution, find_history, fold_histories, load_intents
from providers.lease.lease import UNCONFIRMED_FILE
from schemas.errors import CredentialError, LeaseholdError, RateLimited
from schemas.files import append_line

# A delete that was accepted is repeated only after so long: some clouds answer a second one with an error.
ASK_AGAIN_S = 15.0


class UnconfirmedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of unconfirmed.jsonl; a later line of the same id with confirmed=True takes it off the list."""

    version: int = 1
    time: float
    cloud: str
    id: str
    name: str
    price_usd_per_hour: float
    confirmed: bool = False
    detail: str = ""


def terminate_machine(
    cloud: Cloud, id: str, *, clock: Clock, deadline_s: float, poll_s: float = DEFAULT_WAITS.poll_s
) -> bool:
    """Ask for deletion until find says that the machine is gone; False when that was not seen within deadline_s."""
    return _terminate(cloud, id, clock, deadline_s, poll_s) == ""


def give_back(
    run_dir: Path,
    *,
    cloud: Cloud,
    cloud_name: str,
    id: str,
    name: str,
    price_usd_per_hour: float,
    clock: Clock,
    deadline_s: float = DEFAULT_WAITS.terminate_s,
    poll_s: float = DEFAULT_WAITS.poll_s,
    as_extra: bool = False,
    on_event: OnEvent = ignore_event,
) -> bool:
    """Terminate a machine of this run and record it: True when it is gone, else it is in unconfirmed.jsonl.

    Raises no error of a cloud; a record that cannot be written raises LeaseholdError after the machine was asked to go.
    """
    was_seen = _is_seen(cloud, id) or _was_ever_seen(run_dir, id)
    trouble = _terminate(cloud, id, clock, deadline_s, poll_s)
    data = {"cloud": cloud_name, "id": id, "name": name, "usd_per_hour": price_usd_per_hour}
    if trouble:
        _append_unconfirmed(
            run_dir,
            UnconfirmedMachine(
                time=clock.now(),
                cloud=cloud_name,
                id=id,
                name=name,
                price_usd_per_hour=price_usd_per_hour,
                detail=trouble,
            ),
        )
        on_event("machine_unconfirmed", f"{cloud_name} machine {id} is not seen to be gone: {trouble}", data)
    else:
        on_event("machine_gone", f"{cloud_name} machine {id} is gone", data)
    # A machine that nobody has seen yet can still appear, so that its absence is not recorded as an end.
    gone: Outcome = "deleted_extra" if as_extra else "deleted"
    _append_outcome(run_dir, id, name, "unconfirmed" if trouble or not was_seen else gone, trouble, clock)
    return not trouble


def load_unconfirmed(run_dir: Path) -> tuple[UnconfirmedMachine, ...]:
    """Machines that were told to go and that nobody has seen to be gone."""
    listed: dict[tuple[str, str], UnconfirmedMachine] = {}
    for line in _read_lines(run_dir / UNCONFIRMED_FILE):
        try:
            machine = msgspec.json.decode(line, type=UnconfirmedMachine)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Cut off by a crash; the intents still name the machine, and the sweep asks for it.
            continue
        listed[machine.cloud, machine.id] = machine
    return tuple(machine for machine in listed.values() if not machine.confirmed)


def retry_unconfirmed(
    run_dir: Path,
    clouds: Mapping[str, Cloud],
    *,
    clock: Clock,
    deadline_s: float = DEFAULT_WAITS.terminate_s,
    poll_s: float = DEFAULT_WAITS.poll_s,
    on_event: OnEvent = ignore_event,
) -> tuple[UnconfirmedMachine, ...]:
    """Ask once more for each machine on the list, at most deadline_s each; returns those that are still on it."""
    for machine in load_unconfirmed(run_dir):
        cloud = clouds.get(machine.cloud)
        if cloud is not None and _terminate(cloud, machine.id, clock, deadline_s, poll_s) == "":
            gone = msgspec.structs.replace(machine, time=clock.now(), confirmed=True, detail="")
            _append_unconfirmed(run_dir, gone)
            on_event("machine_gone", f"{machine.cloud} machine {machine.id} is gone", {"id": machine.id})
    return load_unconfirmed(run_dir)


def confirm_all(run_dir: Path, clock: Clock) -> None:
    """Clear the list: a release has proven that nothing of the lease is left."""
    for machine in load_unconfirmed(run_dir):
        gone = msgspec.structs.replace(machine, time=clock.now(), confirmed=True, detail="")
        _append_unconfirmed(run_dir, gone)


def _terminate(cloud: Cloud, id: str, clock: Clock, deadline_s: float, poll_s: float) -> str:
    """The trouble that is left at the deadline, "" when the machine is gone."""
    deadline = clock.monotonic() + deadline_s
    asked_at: float | None = None
    while True:
        wait_s = poll_s
        try:
            if asked_at is None or clock.monotonic() - asked_at >= ASK_AGAIN_S:
                asked_at = None
                cloud.terminate(id)
                asked_at = clock.monotonic()
            if cloud.find(id) is None:
                return ""
            trouble = "the cloud still lists it"
        except CredentialError as error:
            return str(error)
        except LeaseholdError as error:
            trouble = str(error)
            if isinstance(error, RateLimited):
                wait_s = max(poll_s, error.retry_after_s)
            # An error to the delete may hide that it was done.
            if asked_at is None and _is_seen(cloud, id) is False:
                return ""
        if clock.monotonic() + wait_s > deadline:
            return trouble
        clock.sleep(wait_s)


def _is_seen(cloud: Cloud, id: str) -> bool | None:
    """Whether the cloud shows the machine now; None when it does not answer."""
    try:
        return cloud.find(id) is not None
    except LeaseholdError:
        return None


def _was_ever_seen(run_dir: Path, id: str) -> bool:
    return any(id in history.seen_ids for history in fold_histories(load_intents(run_dir).intents))


def _append_outcome(run_dir: Path, id: str, name: str, outcome: Outcome, detail: str, clock: Clock) -> None:
    if not run_dir.is_dir():
        return
    history = find_history(run_dir, name)
    # Deleted from another computer, there is no log here that this could end.
    if history is not None:
        append_resolution(run_dir, history, outcome=outcome, now=clock.now(), id=id, detail=detail)


def _append_unconfirmed(run_dir: Path, machine: UnconfirmedMachine) -> None:
    if not run_dir.is_dir():
        return
    path = run_dir / UNCONFIRMED_FILE
    try:
        # A line break first, since a crash may have cut off the last line; empty lines are skipped.
        append_line(path, b"\n" + msgspec.json.encode(machine), durable=True, mode=0o600)
    except OSError as error:
        raise LeaseholdError(
            f"cannot write down that {machine.cloud} machine {machine.id} may be alive: {error.strerror}",
            where=str(path),
            fix="Make room; the release looks for it all the same.",
        ) from error


def _read_lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        return []
