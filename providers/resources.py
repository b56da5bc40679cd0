"""The Pulumi dynamic resources Lease, Machine and Endpoint: thin hands around acquisition and sweep, used by the program.

The names of this module and of its provider classes are stored in every stack's state: they are a file format.
Nothing is kept on a provider object, since it would be pickled into the state.
"""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import pulumi
from pulumi.dynamic import (
    CheckResult,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from providers.boot import BootLimits, wait_until_ssh_answers
from providers.choice import Choice
from providers.clock import OnEvent, SystemClock
from providers.cloud import LaunchRequest, Offer
from providers.keys import load_or_make_key_pair
from providers.lease.acquisition import acquire_machine
from providers.lease.intents import make_offer_key
from providers.lease.lease import open_lease
from providers.lease.settling import AcquiredMachine
from providers.lease.sweep import release_lease
from providers.lease.termination import give_back
from providers.open_clouds import CONSOLES, choose_waits, open_clouds
from providers.provider_host import watch_engine, widen_provider_host
from schemas.errors import LeaseholdError
from schemas.events import Source, append_event
from schemas.failure import Step, record_failure
from schemas.files import create_file

Properties = Mapping[str, Any]
Provider = TypeVar("Provider", bound="LeaseholdProvider")


class ResourceFailed(Exception):
    """Carries our message through the engine; Pulumi prints it without a traceback."""


class LeaseInputs(msgspec.Struct, frozen=True, kw_only=True):
    run_dir: str
    run: str
    lifetime_s: float
    clouds: tuple[str, ...]
    settle_s: float
    release_deadline_s: float


class MachineInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is made from; choices are tried in this order, left_out has the keys of offers that failed before."""

    run_dir: str
    index: int
    attempt: int
    token: str
    expires_at: int
    public_key: str
    choices: tuple[Choice, ...]
    left_out: tuple[str, ...] = ()
    heartbeat_timeout_s: int
    settle_s: float


class EndpointInputs(msgspec.Struct, frozen=True, kw_only=True):
    run_dir: str
    index: int
    attempt: int
    cloud: str
    machine_id: str
    machine_name: str
    host_key: str
    boot_minutes: float


class LeaseholdProvider(ResourceProvider):
    """What all three share: inputs pass as they are, nothing is updated in place, no property erases another."""

    def check(self, _olds: Properties, news: Properties) -> CheckResult:
        widen_provider_host()
        return CheckResult(dict(news), [])

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult({**olds, **news})

    def read(self, id_: str, props: Properties) -> ReadResult:
        return ReadResult(id_, dict(props))


class LeaseProvider(LeaseholdProvider):
    """The right to have machines: first made, last deleted; its delete proves that nothing is left."""

    def diff(self, _id: str, _olds: Properties, _news: Properties) -> DiffResult:
        return DiffResult(changes=False)

    def create(self, props: Properties) -> CreateResult:
        inputs = _decode(props, LeaseInputs)
        with_report = _reporting(inputs.run_dir, "lease", -1, 0)
        return with_report(lambda: _create_lease(inputs))

    def delete(self, _id: str, props: Properties) -> None:
        inputs = _decode(props, LeaseInputs)
        run_dir = _existing_folder(inputs.run_dir)
        with_report = _reporting(inputs.run_dir, "lease", -1, 0)
        with_report(
            lambda: release_lease(
                run_dir,
                run=inputs.run,
                token=str(props["token"]),
                clouds=open_clouds(inputs.clouds),
                clock=SystemClock(),
                settle_s=inputs.settle_s,
                deadline_s=inputs.release_deadline_s,
                waits=choose_waits(inputs.clouds),
                consoles=CONSOLES,
                on_event=make_event_writer(run_dir, "release"),
            )
        )


class MachineProvider(LeaseholdProvider):
    """One machine of one cloud; replaced, the old one first, only when its attempt was raised."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        raised = int(news.get("attempt", 0)) > int(olds.get("attempt", 0))
        return DiffResult(changes=raised, replaces=["attempt"] if raised else [], delete_before_replace=True)

    def create(self, props: Properties) -> CreateResult:
        watch_engine()
        inputs = _decode(props, MachineInputs)
        with_report = _reporting(inputs.run_dir, "machine", inputs.index, inputs.attempt)
        return with_report(lambda: _create_machine(inputs, props))

    def read(self, id_: str, props: Properties) -> ReadResult:
        state = open_clouds([str(props["cloud"])])[str(props["cloud"])].find(id_)
        return ReadResult(id_ if state else "", dict(props) if state else {})

    def delete(self, id_: str, props: Properties) -> None:
        """Never raises: what could not be confirmed is on the unconfirmed list, and the Lease proves it."""
        run_dir = _existing_folder(str(props["run_dir"]))
        cloud_name = str(props["cloud"])
        on_event = functools.partial(append_event, run_dir / "events.jsonl")
        try:
            gone = give_back(
                run_dir,
                cloud=open_clouds([cloud_name])[cloud_name],
                cloud_name=cloud_name,
                id=id_,
                name=str(props["machine_name"]),
                price_usd_per_hour=float(props["price_usd_per_hour"]),
                clock=SystemClock(),
                poll_s=choose_waits([cloud_name]).poll_s,
            )
        except LeaseholdError as error:
            on_event("cloud", "machine_unconfirmed", str(error), index=int(props["index"]), id=id_)
            return
        event = "machine_gone" if gone else "machine_unconfirmed"
        word = "is gone" if gone else "is not confirmed gone; the lease's sweep will prove it"
        on_event("cloud", event, f"{cloud_name} machine {id_} {word}", index=int(props["index"]), id=id_)


class EndpointProvider(LeaseholdProvider):
    """Where SSH answers on a machine; replaced when the machine's id changes."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        changed = olds.get("machine_id") != news.get("machine_id")
        return DiffResult(changes=changed, replaces=["machine_id"] if changed else [], delete_before_replace=True)

    def create(self, props: Properties) -> CreateResult:
        watch_engine()
        inputs = _decode(props, EndpointInputs)
        with_report = _reporting(inputs.run_dir, "endpoint", inputs.index, inputs.attempt)
        return with_report(lambda: _create_endpoint(inputs, props))

    def delete(self, _id: str, _props: Properties) -> None:
        """An address costs nothing: the machine behind it is deleted by its own resource."""


class Lease(Resource, module="leasehold", name="Lease"):
    token: pulumi.Output[str]
    expires_at: pulumi.Output[int]
    public_key: pulumi.Output[str]
    private_key: pulumi.Output[str]
    engine_key: pulumi.Output[str]

    def __init__(self, name: str, inputs: LeaseInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        made = dict.fromkeys(("token", "expires_at", "public_key", "private_key", "engine_key"))
        secret = pulumi.ResourceOptions(additional_secret_outputs=["private_key", "engine_key"])
        props = {**msgspec.to_builtins(inputs), **made}
        super().__init__(LeaseProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret))


class Machine(Resource, module="leasehold", name="Machine"):
    cloud: pulumi.Output[str]
    machine_name: pulumi.Output[str]
    choice: pulumi.Output[int]
    host_key: pulumi.Output[str]
    price_usd_per_hour: pulumi.Output[float]
    created_at: pulumi.Output[float]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        made = ("cloud", "machine_name", "choice", "host_key", "price_usd_per_hour", "region", "gpu", "created_at")
        super().__init__(MachineProvider(), name, {**props, **dict.fromkeys(made)}, opts)


class Endpoint(Resource, module="leasehold", name="Endpoint"):
    host: pulumi.Output[str]
    port: pulumi.Output[int]
    user: pulumi.Output[str]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(EndpointProvider(), name, {**props, "host": None, "port": None, "user": None}, opts)


def make_event_writer(run_dir: Path, source: Source, **always: Any) -> OnEvent:
    """What acquisition, boot and sweep tell goes to the run's events, with `always` added to the data."""

    def write(event: str, message: str, data: dict[str, Any]) -> None:
        append_event(run_dir / "events.jsonl", source, event, message, **{**always, **data})

    return write


def _create_lease(inputs: LeaseInputs) -> CreateResult:
    run_dir = Path(inputs.run_dir)
    lease = open_lease(
        run_dir, run=inputs.run, expires_at=int(time.time() + inputs.lifetime_s), clouds=inputs.clouds, now=time.time()
    )
    keys = load_or_make_key_pair(run_dir / "id_ed25519")
    outputs = {
        **msgspec.to_builtins(inputs),
        "token": lease.token,
        "expires_at": lease.expires_at,
        "public_key": keys.public,
        "private_key": keys.private,
        "engine_key": _load_or_make_engine_key(run_dir / "engine.key"),
    }
    return CreateResult(lease.token, outputs)


def _load_or_make_engine_key(path: Path) -> str:
    """The bearer key of this run's engines, in a file that only this user reads."""
    create_file(path, secrets.token_hex(24).encode(), mode=0o600)
    return path.read_text()


def _create_machine(inputs: MachineInputs, props: Properties) -> CreateResult:
    run_dir = Path(inputs.run_dir)
    offers = [choice.offer for choice in inputs.choices]
    names = tuple(dict.fromkeys(offer.cloud for offer in offers))
    acquired = acquire_machine(
        run_dir,
        index=inputs.index,
        attempt=inputs.attempt,
        offers=offers,
        left_out=inputs.left_out,
        make_request=functools.partial(_make_request, inputs),
        clouds=open_clouds(names),
        clock=SystemClock(),
        settle_s=inputs.settle_s,
        waits=choose_waits(names),
        on_event=make_event_writer(run_dir, "cloud", index=inputs.index),
    )
    return CreateResult(acquired.id, {**props, **_describe(inputs, acquired)})


def _describe(inputs: MachineInputs, acquired: AcquiredMachine) -> dict[str, Any]:
    keys = load_or_make_key_pair(Path(inputs.run_dir) / "hostkeys" / acquired.name)
    return {
        "cloud": acquired.cloud,
        "machine_name": acquired.name,
        "choice": _find_choice(inputs, acquired.offer),
        "host_key": keys.public,
        "price_usd_per_hour": acquired.price_usd_per_hour,
        "region": acquired.offer.region,
        "gpu": acquired.offer.gpu,
        "created_at": acquired.created_at,
    }


def _make_request(inputs: MachineInputs, name: str, offer: Offer) -> LaunchRequest:
    keys = load_or_make_key_pair(Path(inputs.run_dir) / "hostkeys" / name)
    choice = inputs.choices[_find_choice(inputs, offer)]
    return LaunchRequest(
        name=name,
        offer=offer,
        public_key=inputs.public_key,
        host_private_key=keys.private,
        expires_at=inputs.expires_at,
        image=choice.image,
        disk_gb=choice.disk_gb,
        heartbeat_timeout_s=inputs.heartbeat_timeout_s,
        settings=choice.settings,
    )


def _find_choice(inputs: MachineInputs, offer: Offer) -> int:
    keys = [make_offer_key(choice.offer) for choice in inputs.choices]
    return keys.index(make_offer_key(offer))


def _create_endpoint(inputs: EndpointInputs, props: Properties) -> CreateResult:
    run_dir = Path(inputs.run_dir)
    found = wait_until_ssh_answers(
        run_dir,
        cloud=open_clouds([inputs.cloud])[inputs.cloud],
        machine_id=inputs.machine_id,
        alias=inputs.machine_name,
        host_key=inputs.host_key,
        index=inputs.index,
        limits=BootLimits(total_s=inputs.boot_minutes * 60),
        clock=SystemClock(),
        on_event=make_event_writer(run_dir, "cloud", index=inputs.index),
    )
    outputs = {**props, "host": found.host, "port": found.port, "user": found.user}
    return CreateResult(f"{inputs.machine_id}@{found.host}:{found.port}", outputs)


T = TypeVar("T")


def _reporting(run_dir: str, step: Step, index: int, attempt: int) -> Callable[[Callable[[], T]], T]:
    """Run an action so that its failure is on the run's list of failures and reaches Pulumi as our message alone."""

    def run(action: Callable[[], T]) -> T:
        try:
            return action()
        except LeaseholdError as error:
            record_failure(
                _existing_folder(run_dir) / "failures.jsonl", step=step, index=index, attempt=attempt, error=error
            )
            _fail(error)

    return run


def _fail(error: LeaseholdError) -> NoReturn:
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    raise ResourceFailed(str(error)) from None


def _existing_folder(run_dir: str) -> Path:
    """The run's folder; made anew when a stack is destroyed on another computer."""
    path = Path(run_dir)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _decode(props: Properties, record: type[T]) -> T:
    """Pulumi gives every number as a float and adds outputs: take what the record names."""
    return msgspec.convert(dict(props), type=record, strict=False)
