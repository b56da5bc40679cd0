"""What a candidate's needs have removed is asked for where they may have, and told by the limit that did it."""

from __future__ import annotations

from collections.abc import Sequence

from providers.cloud import Offer
from schemas.job import Candidate
from stacks.planning.left_out import find_left_out
from stacks.planning.plan import LeftOut
from tests.stacks.run_files import make_h100, make_job, make_offer, plan_for


def find(candidate: Candidate, kept: Sequence[Offer], wide: Sequence[Offer]) -> tuple[list[LeftOut], int]:
    asked = []

    def ask(candidate: Candidate) -> Sequence[Offer]:
        asked.append(candidate)
        return wide

    found = find_left_out(make_job(candidates=[candidate]), [(candidate, kept)], ask=ask)
    return found, len(asked)


def test_regions_leave_out_what_is_elsewhere() -> None:
    here, there = make_h100("US-1"), make_h100("EU-1", 2.0)
    sold_out, anywhere = make_h100("EU-2", available=False), make_h100("")

    (found,), _ = find(
        Candidate(cloud="runpod", gpu="H100", regions=("us-1",)), [here], [here, there, sold_out, anywhere]
    )

    assert (found.candidate, found.limit, found.offers) == (1, "regions us-1", 1)
    assert (found.cheapest_usd_per_hour, found.kinds) == (2.0, ("runpod H100 secure",))


def test_memory_leaves_out_smaller_gpus() -> None:
    large = make_h100()
    small = make_offer(
        cloud="runpod", gpu="L4", gpu_id="NVIDIA L4", memory_gb=24, region="US-1", price_usd_per_hour=0.4
    )

    (found,), _ = find(Candidate(cloud="runpod", min_gb=80), [large], [large, small])

    assert (found.limit, found.kinds) == ("min_gb 80", ("runpod L4",))


def test_the_interconnect_leaves_out_other_boards() -> None:
    sxm, pcie = make_h100(gpu="H100-SXM"), make_h100(gpu="H100-PCIE", gpu_id="NVIDIA H100 PCIe")

    (found,), _ = find(Candidate(cloud="runpod", gpu="H100", interconnect="pcie"), [pcie], [sxm, pcie])

    assert (found.limit, found.kinds) == ("interconnect pcie", ("runpod H100-SXM secure",))


def test_no_cloud_is_asked_where_nothing_can_have_been_left_out() -> None:
    for candidate in (
        Candidate(cloud="runpod", gpu="H100-SXM", min_gb=80),
        Candidate(cloud="local", min_gb=80, regions=("x",)),
    ):
        assert find(candidate, [make_h100()], []) == ([], 0)


def test_the_plan_adds_what_is_too_dear() -> None:
    candidate = Candidate(cloud="runpod", gpu="H100", max_usd_per_hour=3.5)

    plan = plan_for(make_job(candidates=[candidate]), make_h100("A", 3.5), make_h100("B", 3.51), make_h100("C", 4.0))

    (found,) = plan.left_out
    assert (found.candidate, found.limit, found.offers, found.cheapest_usd_per_hour) == (
        1,
        "max_usd_per_hour 3.50",
        2,
        3.51,
    )
