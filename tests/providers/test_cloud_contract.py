"""What providers.cloud promises, for every cloud: the local one, and RunPod and Lambda Cloud on their emulators."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from providers.cloud import Cloud, LaunchRequest, MachineState, Need, Offer
from providers.registry import CLOUDS
from schemas.errors import CredentialError, LeaseholdError, NoCapacity, RetiredApi, SpecError, UnclearOutcome
from schemas.names import make_machine_name, make_prefix
from tests.providers.cloud_bench import wait_until
from tests.providers.cloud_side import Renter, Side, open_emulated, open_local
from tests.providers.fake_api import HOST_KEYS, KEYS, TOKEN

pytestmark = pytest.mark.wire


@pytest.fixture(params=sorted(CLOUDS))
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    name: str = request.param
    with open_local(tmp_path) if name == "local" else open_emulated(name, tmp_path) as opened:
        yield opened


@pytest.fixture
def renter(side: Side, tmp_path: Path) -> Renter:
    return Renter(side, tmp_path / "run")


def pick_two(side: Side) -> list[Offer]:
    """Two offers that the log tells apart: two places, or on this computer two sizes."""
    first = side.pick_offer()
    if first.cloud == "local":
        return [first, msgspec.structs.replace(first, count=2)]
    others = side.cloud.offers(Need(gpu=first.gpu))
    return [first, next(each for each in others if each.available and each.region not in ("", first.region))]


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


def test_an_unclear_create_is_adopted_once(side: Side, renter: Renter) -> None:
    side.lose_the_next_answer()

    machine = renter.acquire([side.pick_offer()])

    assert machine.adopted and side.count_machines() == 1
    assert side.cloud.find(machine.name).id == machine.id
    assert [each.id for each in renter.release().clouds[0].terminated] == [machine.id]
    assert side.count_machines() == 0


def test_a_lost_answer_is_unclear_and_nothing_else(side: Side) -> None:
    side.lose_the_next_answer()
    expires_at = int(time.time()) + 600
    request = LaunchRequest(
        name=make_machine_name(token=TOKEN, index=0, attempt=1, expires_at=expires_at),
        offer=side.pick_offer(),
        public_key=KEYS.public,
        host_private_key=HOST_KEYS.private,
        expires_at=expires_at,
    )

    with pytest.raises(UnclearOutcome):
        side.cloud.launch(request)
    assert side.cloud.find(request.name) is not None and side.count_machines() == 1


def test_extra_copies_of_a_machine_are_deleted(side: Side, renter: Renter) -> None:
    id, request = side.launch()
    copy = launch_again(side, request)
    renter.note_a_create_that_died(request)

    machine = renter.acquire([request.offer])

    assert machine.adopted and machine.id in (id, copy) and id != copy
    wait_until(lambda: side.count_machines() == 1)
    assert side.cloud.find(machine.id) is not None
    renter.release()
    assert side.count_machines() == 0


def launch_again(side: Side, request: LaunchRequest) -> str:
    """The same order once more, as a proxy that repeats requests would send it."""
    ids: list[str] = []

    def order() -> bool:
        with contextlib.suppress(LeaseholdError):
            ids.append(side.cloud.launch(request))
        return bool(ids)

    wait_until(order)
    return ids[0]


def test_without_capacity_the_next_offer_is_taken(side: Side, renter: Renter) -> None:
    first, second = pick_two(side)
    side.sell_out(for_good=False)

    machine = renter.acquire([first, second])

    assert machine.offer == second != first and not machine.adopted
    assert side.count_machines() == 1
    renter.release()
    assert side.count_machines() == 0


def test_without_capacity_anywhere_nothing_is_made_and_all_that_was_tried_is_told(side: Side, renter: Renter) -> None:
    offers = pick_two(side)
    side.sell_out(for_good=True)

    with pytest.raises(NoCapacity, match=r"tried in this order:\n    1\. .*\n    2\. ") as caught:
        renter.acquire(offers)

    assert caught.value.exit_code == 11
    assert side.count_machines() == 0
    assert renter.release().clouds[0].terminated == ()


def test_a_refused_key_is_told_with_its_variable_and_makes_nothing(side: Side, renter: Renter) -> None:
    offer = side.pick_offer()
    side.refuse_the_key()

    for use in list_uses(side, renter, offer):
        with pytest.raises(CredentialError, match="_API_KEY") as caught:
            use()
        assert caught.value.exit_code == 3
    assert side.count_machines() == 0


def test_a_retired_api_is_told_and_makes_nothing(side: Side, renter: Renter) -> None:
    offer = side.pick_offer()
    side.retire_the_api()

    for use in list_uses(side, renter, offer):
        with pytest.raises(RetiredApi, match="410") as caught:
            use()
        assert caught.value.exit_code == 4
    assert side.count_machines() == 0


def list_uses(side: Side, renter: Renter, offer: Offer) -> list[Callable[[], object]]:
    cloud = side.cloud
    return [
        lambda: cloud.offers(Need()),
        lambda: cloud.list_ours("lh-"),
        lambda: cloud.find("neverthere1"),
        lambda: cloud.terminate("neverthere1"),
        lambda: renter.acquire([offer]),
    ]


def test_a_cloud_that_asks_to_wait_is_waited_for_and_one_machine_is_made(side: Side, renter: Renter) -> None:
    offer = side.pick_offer()
    side.limit_the_rate()
    assert side.cloud.list_ours("lh-") == []
    side.limit_the_rate()

    machine = renter.acquire([offer])

    assert not machine.adopted and side.count_machines() == 1
    side.limit_the_rate()
    renter.release()
    assert side.count_machines() == 0
