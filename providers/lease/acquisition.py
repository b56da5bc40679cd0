"""Getting one machine: settle what earlier creates made, then walk the ranked offers, never creating blindly twice.

Called by Machine.create, in several threads and processes at once for different indexes of one run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from providers.clock import DEFAULT_WAITS, Clock, OnEvent, Waits
from providers.cloud import Cloud, LaunchRequest, Offer
from providers.lease.intents import (
    CreateHistory,
    Intent,
    Outcome,
    append_intent,
    fold_histories,
    load_intents,
    make_offer_key,
    next_try,
)
from providers.lease.lease import hold_index, hold_open_lease, require_open
from providers.lease.settling import AcquiredMachine, Acquirer, UnsettledCreate, settle_create, settle_earlier
from providers.lease.termination import give_back
from schemas.errors import (
    CancelledError,
    CloudError,
    CredentialError,
    LeaseholdError,
    NoCapacity,
    RateLimited,
    RequestRefused,
    RetiredApi,
    UnclearOutcome,
)
from schemas.names import make_machine_name

MakeRequest = Callable[[str, Offer], LaunchRequest]
# An offer that swallows creates is not tried for ever: each time costs a settle window.
_UNCLEAR_CREATES_PER_OFFER = 2


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    offer: Offer
    error: LeaseholdError


def acquire_machine(
    run_dir: Path,
    *,
    index: int,
    attempt: int,
    offers: Sequence[Offer],
    make_request: MakeRequest,
    clouds: Mapping[str, Cloud],
    clock: Clock,
    settle_s: float,
    on_event: OnEvent,
    left_out: Collection[str] = (),
    waits: Waits = DEFAULT_WAITS,
) -> AcquiredMachine:
    """One machine for this index: what an earlier, interrupted create of the same attempt made, else a new one.

    left_out holds offer keys (make_offer_key). Raises NoCapacity, RequestRefused, CredentialError or CloudError when no
    offer is left, UnclearOutcome when a machine may exist that cannot be looked up, CancelledError when the lease was
    revoked, ExpiredError past its expiry.
    """
    lease = require_open(run_dir, now=clock.now())
    acquirer = Acquirer(
        run_dir=run_dir,
        lease=lease,
        index=index,
        attempt=attempt,
        offers=tuple(offer for offer in offers if make_offer_key(offer) not in left_out),
        clouds=clouds,
        clock=clock,
        settle_s=settle_s,
        waits=waits,
        on_event=on_event,
    )
    with _hold_index(acquirer):
        kept = _settle_earlier(acquirer) or _walk(acquirer, make_request)
        return _check_lease(acquirer, kept)


@contextlib.contextmanager
def _hold_index(acquirer: Acquirer) -> Iterator[None]:
    """Wait for an older acquisition of this index to end, or for the lease to be revoked."""
    waits = acquirer.waits
    tries = int(waits.request_timeout_s + acquirer.settle_s + waits.give_up_s) + 1
    with contextlib.ExitStack() as stack:
        for left in reversed(range(tries)):
            try:
                stack.enter_context(hold_index(acquirer.run_dir, acquirer.index, timeout_s=1.0))
                break
            except LeaseholdError:
                if left == 0:
                    raise
                acquirer.require_open()
        yield


def _settle_earlier(acquirer: Acquirer) -> AcquiredMachine | None:
    log = load_intents(acquirer.run_dir)
    histories = [each for each in fold_histories(log.intents) if each.index == acquirer.index]
    newest = max((each.attempt for each in histories), default=acquirer.attempt)
    if newest > acquirer.attempt:
        raise CancelledError(
            f"attempt {acquirer.attempt} of machine {acquirer.index} was replaced by attempt {newest}",
            where=str(acquirer.run_dir),
            fix="Nothing to do: the newer attempt goes on.",
        )
    open_ones = [each for each in histories if each.may_exist]
    # A damaged log may hide creates of any cloud.
    names = list(acquirer.clouds) if log.damaged else list(dict.fromkeys(each.cloud for each in open_ones))
    return settle_earlier(acquirer, open_ones, names) if names else None


def _walk(acquirer: Acquirer, make_request: MakeRequest) -> AcquiredMachine:
    failures: list[_Failure] = []
    closed: set[str] = set()
    for offer in acquirer.offers:
        if offer.cloud in closed:
            continue
        try:
            return _try_offer(acquirer, offer, make_request)
        except UnsettledCreate:
            # Going on would make a second machine while nobody knows of the first.
            raise
        except (CredentialError, RetiredApi) as error:
            closed.add(offer.cloud)
            failures.append(_Failure(offer=offer, error=error))
        except (CloudError, NoCapacity) as error:
            failures.append(_Failure(offer=offer, error=error))
        _report(acquirer, failures[-1])
    raise _make_exhausted(failures)


def _try_offer(acquirer: Acquirer, offer: Offer, make_request: MakeRequest) -> AcquiredMachine:
    """Create until the answer is clear: again when told to wait, and once more after a create that left nothing."""
    deadline = acquirer.clock.monotonic() + acquirer.waits.give_up_s
    unclear = 0
    while True:
        try:
            return _create(acquirer, offer, make_request)
        except RateLimited as error:
            wait_s = max(error.retry_after_s, acquirer.waits.poll_s)
            if acquirer.clock.monotonic() + wait_s > deadline:
                raise
            acquirer.on_event("rate_limited", f"{offer.cloud} asks to wait {wait_s:.0f} s", {"cloud": offer.cloud})
            acquirer.pause(wait_s)
        except _LeftNothing as error:
            unclear += 1
            if unclear >= _UNCLEAR_CREATES_PER_OFFER:
                raise error.unclear from error


class _LeftNothing(Exception):
    """An unclear create of which nothing was seen until the settle window had passed."""

    def __init__(self, unclear: UnclearOutcome) -> None:
        super().__init__(str(unclear))
        self.unclear = unclear


def _create(acquirer: Acquirer, offer: Offer, make_request: MakeRequest) -> AcquiredMachine:
    name = make_machine_name(
        token=acquirer.lease.token,
        index=acquirer.index,
        attempt=next_try(load_intents(acquirer.run_dir), acquirer.index),
        expires_at=acquirer.lease.expires_at,
    )
    request = make_request(name, offer)
    cloud = acquirer.cloud(offer.cloud)
    with hold_open_lease(acquirer.run_dir, acquirer.clock):
        acquirer.require_open()
        intent = _make_intent(acquirer, name, offer)
        append_intent(acquirer.run_dir, intent)
        try:
            id = cloud.launch(request)
        except LeaseholdError as error:
            _answer(acquirer, intent, _name_outcome(error), detail=error.what)
            if not isinstance(error, UnclearOutcome):
                raise
            lost = error
        else:
            _answer_created(acquirer, intent, id)
            return _make_acquired(acquirer, name, offer, id, intent.time)
    return _settle_unclear(acquirer, intent, lost)


def _make_intent(acquirer: Acquirer, name: str, offer: Offer) -> Intent:
    return Intent(
        time=acquirer.clock.now(),
        kind="intent",
        name=name,
        index=acquirer.index,
        attempt=acquirer.attempt,
        cloud=offer.cloud,
        offer=make_offer_key(offer),
        price_usd_per_hour=offer.price_usd_per_hour,
    )


def _name_outcome(error: LeaseholdError) -> Outcome:
    if isinstance(error, UnclearOutcome):
        return "unclear"
    return "no_capacity" if isinstance(error, NoCapacity) else "refused"


def _answer(acquirer: Acquirer, intent: Intent, outcome: Outcome, *, id: str = "", detail: str = "") -> None:
    answer = msgspec.structs.replace(
        intent, time=acquirer.clock.now(), kind="answer", outcome=outcome, id=id, detail=detail
    )
    append_intent(acquirer.run_dir, answer)


def _answer_created(acquirer: Acquirer, intent: Intent, id: str) -> None:
    try:
        _answer(acquirer, intent, "created", id=id)
    except LeaseholdError:
        # Nobody would know this machine but by its name: rather none than one without a record.
        with contextlib.suppress(LeaseholdError):
            acquirer.cloud(intent.cloud).terminate(id)
        raise


def _make_acquired(acquirer: Acquirer, name: str, offer: Offer, id: str, created_at: float) -> AcquiredMachine:
    price = offer.price_usd_per_hour
    acquirer.on_event(
        "machine_created",
        f"{offer.cloud} machine {id}: {offer.gpu} x{offer.count} at {price:.2f} USD/h",
        {"cloud": offer.cloud, "id": id, "name": name, "offer": make_offer_key(offer), "usd_per_hour": price},
    )
    return AcquiredMachine(
        cloud=offer.cloud,
        id=id,
        name=name,
        offer=offer,
        price_usd_per_hour=price,
        created_at=created_at,
        adopted=False,
    )


def _settle_unclear(acquirer: Acquirer, intent: Intent, lost: UnclearOutcome) -> AcquiredMachine:
    acquirer.on_event(
        "create_unclear",
        f"{intent.cloud} did not say whether it made {intent.name}: looking for up to {acquirer.settle_s:.0f} s",
        {"cloud": intent.cloud, "name": intent.name},
    )
    history: CreateHistory = next(
        each for each in fold_histories(load_intents(acquirer.run_dir).intents) if each.name == intent.name
    )
    kept = settle_create(acquirer, history)
    if kept is None:
        raise _LeftNothing(lost)
    return kept


def _check_lease(acquirer: Acquirer, machine: AcquiredMachine) -> AcquiredMachine:
    """The machine, or its end when the lease was revoked or ran out while it was made."""
    try:
        acquirer.require_open()
    except LeaseholdError:
        give_back(
            acquirer.run_dir,
            cloud=acquirer.cloud(machine.cloud),
            cloud_name=machine.cloud,
            id=machine.id,
            name=machine.name,
            price_usd_per_hour=machine.price_usd_per_hour,
            clock=acquirer.clock,
            deadline_s=acquirer.waits.terminate_s,
            poll_s=acquirer.waits.poll_s,
            on_event=acquirer.on_event,
        )
        raise
    return machine


def _report(acquirer: Acquirer, failure: _Failure) -> None:
    offer = failure.offer
    acquirer.on_event(
        "offer_failed",
        f"{_describe(offer)}: {failure.error.what}",
        {"offer": make_offer_key(offer), "reason": type(failure.error).__name__},
    )


def _describe(offer: Offer) -> str:
    what = " ".join(word for word in (offer.cloud, offer.gpu, f"x{offer.count}", offer.tier, offer.region) if word)
    return f"{what} at {offer.price_usd_per_hour:.2f} USD/h"


def _make_exhausted(failures: Sequence[_Failure]) -> LeaseholdError:
    """The error of a walk that ended: NoCapacity if any offer lacked it, else the last one that says most."""
    tried = "".join(
        f"\n    {number}. {_describe(each.offer)}: {each.error.what}" for number, each in enumerate(failures, 1)
    )
    errors = [each.error for each in failures]
    if not errors or any(isinstance(error, NoCapacity) for error in errors):
        return NoCapacity(
            f"no offer is left to try; tried in this order:{tried or ' none'}",
            fix="Add candidates to the job, allow a higher price, or try again later.",
        )
    answered = [error for error in errors if not isinstance(error, CredentialError)]
    refused = [error for error in answered if isinstance(error, RequestRefused)]
    # A refusal is a problem of the request only if every candidate gave it.
    unclear = [error for error in answered if error not in refused]
    return (unclear or refused or errors)[-1]
