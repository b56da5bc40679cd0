"""What providers.cloud promises, for every cloud: the local one, and RunPod and Lambda Cloud on their emulators."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from providers.cloud import Cloud, LaunchRequest, MachineState, Need, Offer
from providers.local import LocalCloud
from providers.registry import CLOUDS
from schemas.errors import SpecError
from schemas.names import make_machine_name, make_prefix
from tests.providers.fake_api import HOST_KEYS, KEYS, TOKEN
from tests.providers.test_clouds_on_emulators import open_bench, wait_until

pytestmark = pytest.mark.wire


class Side(Protocol):
    cloud: Any

    def pick_offer(self) -> Offer: ...

    def launch(self, index: int = 0) -> tuple[str, LaunchRequest]: ...


class LocalSide:
    """The local cloud with the same handles as an emulated one."""

    def __init__(self, folder: Path) -> None:
        self.cloud: Cloud = LocalCloud(folder / "cloud", price_usd_per_hour=1.25)

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


@contextlib.contextmanager
def open_local(folder: Path) -> Iterator[LocalSide]:
    side = LocalSide(folder)
    try:
        yield side
    finally:
        for state in side.cloud.list_ours("lh-"):
            side.cloud.terminate(state.id)
        wait_until(lambda: not side.cloud.list_ours("lh-"))


@pytest.fixture(params=sorted(CLOUDS))
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    name: str = request.param
    with open_local(tmp_path) if name == "local" else open_bench(name, tmp_path) as opened:
        yield opened


def wait_until_ready(cloud: Cloud, id: str) -> MachineState:
    wait_until(lambda: (state := cloud.find(id)) is not None and state.phase == "ready")
    state = cloud.find(id)
    assert state is not None
    return state


def test_offers_are_cheapest_first_and_name_their_cloud(side: Side) -> None:
    offers = side.cloud.offers(Need())
    prices = [offer.price_usd_per_hour for offer in offers]

    assert offers and prices == sorted(prices)
    assert len({offer.cloud for offer in offers}) == 1
    assert any(offer.available for offer in offers)


def test_an_unknown_gpu_or_region_is_a_mistake_of_the_job(side: Side) -> None:
    with pytest.raises(SpecError):
        side.cloud.offers(Need(gpu="H1000"))
    with pytest.raises(SpecError):
        side.cloud.offers(Need(gpu=side.pick_offer().gpu, regions=("mars-1",)))


def test_a_machine_lives_from_its_launch_to_its_end(side: Side) -> None:
    id, request = side.launch()

    ready = wait_until_ready(side.cloud, id)
    by_name = side.cloud.find(request.name)
    assert ready.name == request.name and ready.endpoint is not None
    assert by_name is not None and by_name.id == id
    assert ready.price_usd_per_hour == pytest.approx(request.offer.price_usd_per_hour)
    assert isinstance(side.cloud.logs(id), str)

    side.cloud.terminate(id)
    wait_until(lambda: side.cloud.find(id) is None)
    side.cloud.terminate(id)
    assert side.cloud.find(request.name) is None
    assert side.cloud.list_ours(make_prefix(TOKEN)) == []


def test_only_names_with_the_prefix_are_ours(side: Side) -> None:
    ids = {side.launch(index)[0] for index in range(2)}

    assert {state.id for state in side.cloud.list_ours(make_prefix(TOKEN))} == ids
    assert side.cloud.list_ours(make_prefix("zzzzzzzzzzzz")) == []


def test_what_was_never_there_is_none_and_ends_well(side: Side) -> None:
    assert side.cloud.find("neverthere1") is None
    assert side.cloud.logs("neverthere1") == ""
    side.cloud.terminate("neverthere1")
