"""Every fault knob of the emulated RunPod has a story: what comes of it, from the create to the proof that nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.cloud import Offer
from providers.emulators.knobs import RUNPOD_KNOBS
from providers.emulators.machines.shim_folder import has_real_sshd
from tests.providers.cloud_bench import Bench, wait_until
from tests.providers.knob_story import Story, Turn, tell
from tests.providers.shared_stories import (
    ADOPTED,
    AFTER_COMMIT,
    ELSEWHERE,
    LEFT_THEN_RELEASED,
    REPLACED,
    list_shared_stories,
    tell_bad_machine,
    tell_nothing_made,
)

pytestmark = pytest.mark.wire

NO_SSHD = "no-sshd:latest"


def order_an_unknown_gpu(offers: list[Offer]) -> list[Offer]:
    return [msgspec.structs.replace(offers[0], gpu_id="NVIDIA H9000"), *offers[1:]]


def acts_on_no_pod(bench: Bench, _run_dir: Path) -> None:
    """Leasehold never stops or starts a pod, so that what may happen then cannot happen to it."""
    assert [each.path for each in bench.emulator.history() if each.path.endswith("/action")] == []


def sends_a_count(bench: Bench, _run_dir: Path) -> None:
    assert [each.body["gpu"]["count"] for each in bench.emulator.history() if each.method == "POST"] == [1]


def walks_every_page(bench: Bench, _run_dir: Path) -> None:
    """Its own pod is the newest and on the first page; those of others are read all the same."""
    listings = [each for each in bench.emulator.history() if each.method == "GET" and each.path == "/v2/pods"]
    first = sum("cursor" not in each.query for each in listings)
    assert len(listings) - first >= first > 0


def shows_its_log(_bench: Bench, run_dir: Path) -> None:
    assert "this image has no sshd" in (run_dir / "boot-0.log").read_text()


def is_billed_later(bench: Bench, _run_dir: Path) -> None:
    (machine,) = bench.emulator.machines()

    def ask() -> Any:
        return bench.cloud.billed_usd(machine.id, start=machine.created_at - 3600, end=bench.emulator.now() + 3600)

    assert ask() is None
    bench.emulator.advance(8000)
    assert ask() == pytest.approx(machine.cost_usd, rel=0.1)


def bills_the_disk(bench: Bench, _run_dir: Path) -> None:
    (machine,) = bench.emulator.machines()
    billed = bench.cloud.billed_usd(machine.id, start=machine.created_at - 3600, end=bench.emulator.now() + 3600)
    gpu_alone = machine.price_usd_per_hour * machine.billed_s / 3600
    assert billed is not None and billed > 2 * gpu_alone


def ends_by_itself(bench: Bench, _run_dir: Path) -> None:
    """Nobody releases it: its dead-man does, with the only right that its key has."""
    wait_until(lambda: bench.emulator.live_machines() == [])
    inside = [each for each in bench.emulator.history() if each.key.startswith("pod:")]
    assert {each.status for each in inside if each.method == "DELETE"} == {403}
    assert inside[-1].path == "/graphql" and inside[-1].status == 200


def cannot_end_itself(bench: Bench, _run_dir: Path) -> None:
    def tries() -> int:
        return sum(each.key.startswith("pod:") and each.status == 403 for each in bench.emulator.history())

    wait_until(lambda: tries() >= 4)
    assert len(bench.emulator.live_machines()) == 1


STORIES: dict[str, tuple[Story, ...]] = list_shared_stories("runpod") | {
    "http_error": (
        Story(turns=(Turn("http_error", AFTER_COMMIT, 1, "^POST /v2/pods$"),), shows=ADOPTED),
        Story(turns=(Turn("http_error", {"cut": True}, 2, "^GET /v2/pods"),)),
    ),
    "api_down": (tell_nothing_made(Turn("api_down"), error="UnsettledCreate 4", creates=1, status=503, left=True),),
    "key_revoked": (
        tell_nothing_made(Turn("key_revoked"), error="CredentialError 3", creates=1, status=401, left=True),
    ),
    "rate_limit_now": (Story(turns=(Turn("rate_limit_now", True, 3),), creates=4, status=429),),
    "nvidia_smi": (tell_bad_machine(Turn("nvidia_smi", "absent", 1), "gpu refused"),),
    "apt_get_fails": (
        Story(
            turns=(Turn("apt_get_fails", True, 1),),
            shows=REPLACED,
            machines=2,
            real=True,
            image=NO_SSHD,
            check=shows_its_log,
        ),
    ),
    "mode": (Story(turns=(Turn("mode", "A"),), boot_s=40),),
    "ssh_after_s": (Story(turns=(Turn("ssh_after_s", 200),), boot_s=190),),
    "create_visible_after_s": (
        Story(turns=(Turn("create_visible_after_s", 60),), boot_s=50),
        Story(turns=(Turn("create_visible_after_s", 250),), boot_s=240),
    ),
    "create_hang_after_commit": (
        Story(
            turns=(Turn("create_hang_after_commit", 3, 1),),
            shows=ADOPTED,
            environ={"LEASEHOLD_REQUEST_TIMEOUT_S": "1.5"},
        ),
    ),
    "ssh_never": (Story(turns=(Turn("ssh_never", True, 1),), shows=REPLACED, machines=2, boot_s=400),),
    "stuck_provisioning": (
        Story(turns=(Turn("stuck_provisioning", True, 1),), shows=REPLACED, machines=2, boot_s=400),
    ),
    "exits_after_s": (Story(turns=(Turn("exits_after_s", 20, 1),), shows=REPLACED, machines=2, boot_within_s=250),),
    "error_after_s": (Story(turns=(Turn("error_after_s", 20, 1),), shows=REPLACED, machines=2, boot_within_s=250),),
    "delete_500_but_done": (Story(turns=(Turn("delete_500_but_done", True, 1),), status=500),),
    "delete_500": (
        Story(turns=(Turn("delete_500", True, 3),), status=500),
        Story(turns=(Turn("delete_500"),), shows=("made", "ready", *LEFT_THEN_RELEASED), status=500),
    ),
    "delete_lag_s": (Story(turns=(Turn("delete_lag_s", 60),), release_s=60),),
    "insufficient_balance_402": (
        tell_nothing_made(Turn("insufficient_balance_402"), error="RequestRefused 4", creates=2, status=402),
    ),
    "pool_403": (Story(turns=(Turn("pool_403", True, 1),), shows=ELSEWHERE, creates=2, status=403),),
    "edge_1010_html": (
        tell_nothing_made(Turn("edge_1010_html"), error="CloudError 4", creates=2, status=403, left=True),
    ),
    "edge_checks_agent": (Story(turns=(Turn("edge_checks_agent"),)),),
    "empty_401": (tell_nothing_made(Turn("empty_401"), error="CredentialError 3", creates=1, status=401, left=True),),
    "unknown_gpu_422": (
        Story(
            turns=(Turn("unknown_gpu_422"),),
            shows=ELSEWHERE,
            creates=2,
            status=422,
            change_offers=order_an_unknown_gpu,
        ),
    ),
    "count_quirk": (Story(turns=(Turn("count_quirk"),), check=sends_a_count),),
    "start_host_full": (Story(turns=(Turn("start_host_full"),), check=acts_on_no_pod),),
    "start_zero_gpu": (Story(turns=(Turn("start_zero_gpu"),), check=acts_on_no_pod),),
    "pod_key_rights": (
        Story(
            turns=(Turn("pod_key_rights", "graphql"),),
            shows=("made", "released"),
            real=True,
            boots=False,
            dies_after_s=2,
            during=ends_by_itself,
        ),
        Story(
            turns=(Turn("pod_key_rights", "none"),),
            shows=("made", "released"),
            real=True,
            boots=False,
            dies_after_s=2,
            during=cannot_end_itself,
        ),
    ),
    "page_cap": (
        Story(
            turns=(Turn("page_cap", 1), Turn("create_500_after_commit", True, 1)),
            shows=ADOPTED,
            check=walks_every_page,
        ),
    ),
    "billing_lag_s": (Story(turns=(Turn("billing_lag_s", 7200),), check=is_billed_later),),
    "disk_usd_per_gb_month": (Story(turns=(Turn("disk_usd_per_gb_month", 1000),), check=bills_the_disk),),
    "quota": (Story(turns=(Turn("quota", {"minute": 8, "hour": 1000, "day": 10_000}),), release_s=30),),
}


def test_every_knob_has_a_story_that_turns_it() -> None:
    assert set(STORIES) == {knob.name for knob in RUNPOD_KNOBS}
    for knob, stories in STORIES.items():
        assert stories and all(knob in {turn.name for turn in story.turns} for story in stories), knob


@pytest.mark.parametrize(
    ("knob", "number"), [(knob, number) for knob in STORIES for number in range(len(STORIES[knob]))]
)
def test_a_fault_leads_to_its_outcome_in_time_and_leaves_nothing(knob: str, number: int, tmp_path: Path) -> None:
    story = STORIES[knob][number]
    if story.image == NO_SSHD and has_real_sshd():
        pytest.skip("here no image can be without sshd")
    tell("runpod", story, tmp_path)
