"""One cloud as the contract suite sees it: the same handles for the local one and for the emulated ones, and who rents there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from providers.clock import SystemClock, Waits, ignore_event
from providers.cloud import Cloud, LaunchRequest, Need, Offer
from providers.lease.acquisition import acquire_machine
from providers.lease.intents import Intent, append_intent, make_offer_key
from providers.lease.lease import open_lease
from providers.lease.proof import Proof
from providers.lease.settling import AcquiredMachine
from providers.lease.sweep import release_lease
from providers.local.local import LocalCloud
from schemas.names import make_machine_name
from tests.providers.cloud_bench import Bench, open_bench, wait_until
from tests.providers.fake_api import HOST_KEYS, KEYS, TOKEN

WAITS = Waits(request_timeout_s=1.0, poll_s=0.2, terminate_s=10.0, give_up_s=5.0)
SETTLE_S = 1.0
GONE = {"status": 410, "body": '{"title": "Gone", "status": 410, "detail": "This version is retired."}'}


class Side(Protocol):
    """One cloud with handles that turn what may go wrong; a cloud that has no such thing skips the test, with the reason."""

    cloud: Any

    def pick_offer(self) -> Offer: ...

    def launch(self, index: int = 0) -> tuple[str, LaunchRequest]: ...

    def count_machines(self) -> int: ...

    def lose_the_next_answer(self) -> None: ...

    def sell_out(self, *, for_good: bool) -> None: ...

    def refuse_the_key(self) -> None: ...

    def limit_the_rate(self) -> None: ...

    def retire_the_api(self) -> None: ...


class LocalSide:
    """The local cloud with the same handles as an emulated one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cloud = self._open("")

    def pick_offer(self) -> Offer:
        return self.cloud.offers(Need())[0]

    def launch(self, index: int = 0) -> tuple[str, LaunchRequest]:
        expires_at = int(time.time()) + 600
        request = LaunchRequest(
            name=make_machine_name(token=TOKEN, index=index, attempt=0, expires_at=expires_at),
            offer=self.pick_offer(),
            public_key=KEYS.public,
            host_private_key=HOST_KEYS.private,
            expires_at=expires_at,
        )
        return self.cloud.launch(request), request

    def count_machines(self) -> int:
        return len(self.cloud.list_ours("lh-"))

    def lose_the_next_answer(self) -> None:
        self.cloud = self._open("unclear@0x1")

    def sell_out(self, *, for_good: bool) -> None:
        self.cloud = self._open("no-capacity" if for_good else "no-capacity@0x1")

    def refuse_the_key(self) -> None:
        pytest.skip("the local cloud takes no key")

    def limit_the_rate(self) -> None:
        pytest.skip("nobody counts the requests to the local cloud: there are none")

    def retire_the_api(self) -> None:
        pytest.skip("the local cloud is no service that could be retired")

    def _open(self, fault: str) -> Cloud:
        return LocalCloud(self.folder / "cloud", price_usd_per_hour=1.25, fault=fault)


class EmulatedSide:
    """RunPod or Lambda Cloud on its emulator; the bench judges every request by the vendor's document."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.cloud: Any = bench.cloud

    def pick_offer(self) -> Offer:
        return self.bench.pick_offer()

    def launch(self, index: int = 0) -> tuple[str, LaunchRequest]:
        return self.bench.launch(index)

    def count_machines(self) -> int:
        return len(self.bench.emulator.live_machines())

    def lose_the_next_answer(self) -> None:
        kind = "create" if self.bench.name == "runpod" else "launch"
        self.bench.emulator.set_fault(f"{kind}_500_after_commit", count=1)

    def sell_out(self, *, for_good: bool) -> None:
        self.bench.emulator.set_fault("capacity_race", count=None if for_good else 1)

    def refuse_the_key(self) -> None:
        self.bench.emulator.set_fault("key_revoked")

    def limit_the_rate(self) -> None:
        self.bench.emulator.set_fault("rate_limit_now", count=2)

    def retire_the_api(self) -> None:
        self.bench.emulator.set_fault("http_error", GONE)


class Renter:
    """Acquires and releases machines of one lease, as the resources of a run do."""

    def __init__(self, side: Side, run_dir: Path) -> None:
        self.side = side
        self.run_dir = run_dir
        self.name = side.pick_offer().cloud
        run_dir.mkdir()
        self.lease = open_lease(
            run_dir,
            run="contract",
            expires_at=int(time.time()) + 600,
            clouds=(self.name,),
            now=time.time(),
            make_token=lambda: TOKEN,
        )

    def acquire(self, offers: Sequence[Offer]) -> AcquiredMachine:
        return acquire_machine(
            self.run_dir,
            index=0,
            attempt=0,
            offers=offers,
            make_request=self._make_request,
            clouds={self.name: self.side.cloud},
            clock=SystemClock(),
            settle_s=SETTLE_S,
            waits=WAITS,
            on_event=ignore_event,
        )

    def release(self) -> Proof:
        return release_lease(
            self.run_dir,
            run="contract",
            token=None,
            clouds={self.name: self.side.cloud},
            clock=SystemClock(),
            settle_s=SETTLE_S,
            deadline_s=20,
            waits=WAITS,
            on_event=ignore_event,
        )

    def note_a_create_that_died(self, request: LaunchRequest) -> None:
        """What is in the log when a process was killed between the order and its answer."""
        intent = Intent(
            time=time.time(),
            kind="intent",
            name=request.name,
            index=0,
            attempt=0,
            cloud=self.name,
            offer=make_offer_key(request.offer),
            price_usd_per_hour=request.offer.price_usd_per_hour,
        )
        append_intent(self.run_dir, intent)

    def _make_request(self, name: str, offer: Offer) -> LaunchRequest:
        return LaunchRequest(
            name=name,
            offer=offer,
            public_key=KEYS.public,
            host_private_key=HOST_KEYS.private,
            expires_at=self.lease.expires_at,
        )


@contextlib.contextmanager
def open_local(folder: Path) -> Iterator[LocalSide]:
    side = LocalSide(folder)
    try:
        yield side
    finally:
        for state in side.cloud.list_ours("lh-"):
            side.cloud.terminate(state.id)
        wait_until(lambda: not side.cloud.list_ours("lh-"))


@contextlib.contextmanager
def open_emulated(name: str, folder: Path) -> Iterator[EmulatedSide]:
    with open_bench(name, folder) as bench:
        yield EmulatedSide(bench)
