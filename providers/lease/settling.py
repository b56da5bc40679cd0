"""What came of a create whose answer is lost: look the name up until the settle window has passed, adopt one machine,
give extras back. Called by acquisition, for its own creates and for those of a process that died."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from providers.clock import Clock, OnEvent, Waits
from providers.cloud import Cloud, MachineState, Offer
from providers.lease.intents import CreateHistory, Outcome, append_resolution, make_offer_key
from providers.lease.lease import LeaseRecord, require_open
from providers.lease.termination import give_back
from schemas.errors import CancelledError, CloudError, CredentialError, LeaseholdError, RateLimited, UnclearOutcome
from schemas.names import make_prefix, parse_machine_name

# How soon a revoked lease ends a wait.
_LEASE_POLL_S = 1.0


class AcquiredMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that is ours. created_at: when its create was sent, seconds since 1970; adopted: found, not just made."""

    cloud: str
    id: str
    name: str
    offer: Offer
    price_usd_per_hour: float
    created_at: float
    adopted: bool


class UnsettledCreate(UnclearOutcome):
    """A create was sent, and the cloud could not be asked what it made: nothing more may be created for its index."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that a look into a cloud has shown, with the create that made it as far as the log knows."""

    cloud: str
    state: MachineState
    history: CreateHistory | None


class Acquirer(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants a machine, and with what: the things that every step of one acquisition needs."""

    run_dir: Path
    lease: LeaseRecord
    index: int
    attempt: int
    offers: tuple[Offer, ...]
    clouds: Mapping[str, Cloud]
    clock: Clock
    settle_s: float
    waits: Waits
    on_event: OnEvent

    def cloud(self, name: str) -> Cloud:
        if name not in self.clouds:
            raise CredentialError(
                f"there is no client for cloud {name}", where=name, fix="Set its credentials (`./inv doctor`)."
            )
        return self.clouds[name]

    def require_open(self) -> None:
        if require_open(self.run_dir, now=self.clock.now()).token != self.lease.token:
            raise CancelledError(
                "the run has a new lease",
                where=str(self.run_dir),
                fix="Nothing to do: this create belongs to an old one.",
            )

    def pause(self, seconds: float) -> None:
        """Sleep, and end with CancelledError soon after the lease is revoked."""
        end = self.clock.monotonic() + seconds
        while (rest := end - self.clock.monotonic()) > 0:
            self.clock.sleep(min(rest, _LEASE_POLL_S))
            self.require_open()

    def record(self, history: CreateHistory, outcome: Outcome, id: str = "", detail: str = "") -> None:
        append_resolution(self.run_dir, history, outcome=outcome, now=self.clock.now(), id=id, detail=detail)


def settle_create(acquirer: Acquirer, history: CreateHistory) -> AcquiredMachine | None:
    """Look for what an unclear create of this process has made; None when the settle window has shown nothing."""

    def look() -> list[Sighting]:
        return [seen for seen in _look_up(acquirer, history.cloud, [history]) if seen.history is not None]

    sightings = _look_until(acquirer, look, bool, acquirer.settle_s)
    return _keep_one(acquirer, sightings, [history])


def settle_earlier(
    acquirer: Acquirer, histories: Sequence[CreateHistory], names: Sequence[str]
) -> AcquiredMachine | None:
    """Look in the named clouds for what earlier creates of this index have made, also those of a dead process."""

    def look() -> list[Sighting]:
        return [seen for name in names for seen in _look_up(acquirer, name, histories)]

    def has_one_to_keep(sightings: Sequence[Sighting]) -> bool:
        return any(_is_adoptable(acquirer, sighting) for sighting in sightings)

    waiting = [each for each in histories if each.attempt == acquirer.attempt and each.outcome != "absent"]
    rest_s = max((_rest_of_window(acquirer, each) for each in waiting), default=0.0)
    sightings = _look_until(acquirer, look, has_one_to_keep, rest_s)
    return _keep_one(acquirer, sightings, histories)


def _rest_of_window(acquirer: Acquirer, history: CreateHistory) -> float:
    """Seconds during which a create of a dead process may still bring a machine to light."""
    window_s = acquirer.waits.request_timeout_s + acquirer.settle_s
    age_s = max(acquirer.clock.now() - history.sent_at, 0.0)
    return max(window_s - age_s, 0.0)


def _look_up(acquirer: Acquirer, cloud_name: str, histories: Sequence[CreateHistory]) -> list[Sighting]:
    """Every machine of this index in a cloud, and those known by id that its listing leaves out."""
    cloud = acquirer.cloud(cloud_name)
    by_name = {history.name: history for history in histories if history.cloud == cloud_name}
    prefix = f"{make_prefix(acquirer.lease.token)}{acquirer.index}x"
    states = {state.id: state for state in cloud.list_ours(prefix) if state.name.startswith(prefix)}
    owners = {state.id: by_name.get(state.name) for state in states.values()}
    for history in by_name.values():
        for id in history.live_ids:
            state = None if id in states else cloud.find(id)
            if state is not None:
                states[id], owners[id] = state, history
    return [Sighting(cloud=cloud_name, state=state, history=owners[id]) for id, state in states.items()]


def _look_until(
    acquirer: Acquirer,
    look: Callable[[], list[Sighting]],
    is_enough: Callable[[list[Sighting]], bool],
    wait_s: float,
) -> list[Sighting]:
    """Look until it is enough or wait_s have passed. The last look must have been answered after that, else
    UnsettledCreate: a cloud that is down tells nothing about what is in it."""
    start = acquirer.clock.monotonic()
    give_up = start + wait_s + acquirer.waits.give_up_s
    while True:
        asked_at, pause_s = acquirer.clock.monotonic(), acquirer.waits.poll_s
        try:
            sightings = look()
        except CredentialError as error:
            raise _make_unsettled(acquirer, error) from error
        except CloudError as error:
            if isinstance(error, RateLimited):
                pause_s = max(pause_s, error.retry_after_s)
            if asked_at >= give_up:
                raise _make_unsettled(acquirer, error) from error
        else:
            if is_enough(sightings) or asked_at >= start + wait_s:
                return sightings
            pause_s = min(pause_s, max(start + wait_s - asked_at, 0.1))
        acquirer.require_open()
        acquirer.pause(pause_s)


def _is_adoptable(acquirer: Acquirer, sighting: Sighting) -> bool:
    history = sighting.history
    return (
        history is not None
        and history.attempt == acquirer.attempt
        and sighting.state.id not in history.dropped_ids
        and sighting.state.phase in ("starting", "ready")
        and _find_offer(acquirer, history) is not None
    )


def _find_offer(acquirer: Acquirer, history: CreateHistory) -> Offer | None:
    return next((offer for offer in acquirer.offers if make_offer_key(offer) == history.offer), None)


def _keep_one(
    acquirer: Acquirer, sightings: Sequence[Sighting], histories: Sequence[CreateHistory]
) -> AcquiredMachine | None:
    """Adopt the oldest machine that may be kept, give all others back, and record what each create came to."""
    kept = min((each for each in sightings if _is_adoptable(acquirer, each)), key=_sort_by_age, default=None)
    if kept is not None and kept.history is not None:
        acquirer.record(kept.history, "adopted", kept.state.id)
    for sighting in sightings:
        if sighting is not kept:
            _give_back_extra(acquirer, sighting)
    seen = {sighting.history.name for sighting in sightings if sighting.history is not None}
    for history in histories:
        # With one machine kept nobody waited for the others: they stay as they are, for the sweep.
        if kept is None and history.name not in seen and history.outcome != "absent":
            acquirer.record(history, "absent")
    return None if kept is None else _make_adopted(acquirer, kept)


def _sort_by_age(sighting: Sighting) -> tuple[float, int, str]:
    name = parse_machine_name(sighting.state.name)
    return (sighting.state.created_at or math.inf, name.attempt if name else 0, sighting.state.id)


def _give_back_extra(acquirer: Acquirer, sighting: Sighting) -> None:
    state, history = sighting.state, sighting.history
    price = state.price_usd_per_hour or (history.price_usd_per_hour if history else 0.0)
    acquirer.on_event(
        "extra_machine", f"{sighting.cloud} machine {state.id} is one too many: giving it back", {"id": state.id}
    )
    give_back(
        acquirer.run_dir,
        cloud=acquirer.cloud(sighting.cloud),
        cloud_name=sighting.cloud,
        id=state.id,
        name=history.name if history else state.name,
        price_usd_per_hour=price,
        clock=acquirer.clock,
        deadline_s=acquirer.waits.terminate_s,
        poll_s=acquirer.waits.poll_s,
        as_extra=True,
        on_event=acquirer.on_event,
    )


def _make_adopted(acquirer: Acquirer, kept: Sighting) -> AcquiredMachine:
    history, state = kept.history, kept.state
    offer = _find_offer(acquirer, history) if history else None
    assert history is not None and offer is not None
    acquirer.on_event(
        "machine_adopted",
        f"{history.cloud} machine {state.id} was made by an earlier create: keeping it",
        {"id": state.id, "name": history.name},
    )
    return AcquiredMachine(
        cloud=history.cloud,
        id=state.id,
        name=history.name,
        offer=offer,
        price_usd_per_hour=offer.price_usd_per_hour,
        created_at=history.sent_at,
        adopted=True,
    )


def _make_unsettled(acquirer: Acquirer, error: LeaseholdError) -> UnsettledCreate:
    return UnsettledCreate(
        f"a create was sent and the cloud does not tell what it made: {error.what}",
        where=error.where,
        fix=f"A machine may be alive. `./inv release {acquirer.lease.run}` finds and ends it.",
    )
