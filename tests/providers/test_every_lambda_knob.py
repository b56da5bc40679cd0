"""Every fault knob of the emulated Lambda Cloud has a story: what comes of it, from the launch to the proof that nothing is
left, and no SSH key in the account."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from providers.emulators.knobs import LAMBDA_KNOBS
from tests.providers.cloud_bench import Bench
from tests.providers.knob_story import Story, Turn, tell
from tests.providers.shared_stories import (
    ADOPTED,
    AFTER_COMMIT,
    ELSEWHERE,
    REPLACED,
    list_shared_stories,
    tell_bad_machine,
    tell_nothing_made,
)

pytestmark = pytest.mark.wire

LAUNCH = "POST /api/v1/instance-operations/launch"
SLOW_BOOT = Turn("active_after_s", 3000, 1)


def terminates_one_id_a_call(bench: Bench, _run_dir: Path) -> None:
    bodies = [each.body for each in bench.emulator.history() if each.path.endswith("/terminate")]
    assert bodies and all(len(body["instance_ids"]) == 1 for body in bodies)


def was_never_told_to_wait(bench: Bench, _run_dir: Path) -> None:
    assert [each.path for each in bench.emulator.history() if each.status == 429] == []


def keeps_the_pace_of_launches(bench: Bench, _run_dir: Path) -> None:
    first, second = (each.time for each in bench.emulator.history() if each.path.endswith("/launch"))
    assert second - first >= 12


def add_file_system(bench: Bench) -> None:
    body = {"name": "cache", "region": "us-west-3"}
    headers = {"Authorization": f"Bearer {bench.emulator.key}"}
    answer = httpx.post(f"{bench.emulator.base_url}/filesystems", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 200


def keeps_the_file_system(bench: Bench, _run_dir: Path) -> None:
    """It is the user's own: it stays, in use for a while after its machine is gone, and hinders no release."""
    headers = {"Authorization": f"Bearer {bench.emulator.key}"}
    bench.emulator.set_fault("request_interval_s", 0)
    listed = httpx.get(f"{bench.emulator.base_url}/file-systems", headers=headers, trust_env=False).json()["data"]
    assert [(each["name"], each["is_in_use"]) for each in listed] == [("cache", True)]


STORIES: dict[str, tuple[Story, ...]] = list_shared_stories("lambda") | {
    "http_error": (
        Story(turns=(Turn("http_error", AFTER_COMMIT, 1, LAUNCH),), shows=ADOPTED),
        Story(turns=(Turn("http_error", {"cut": True}, 2, "^GET /api/v1/instances"),)),
    ),
    "api_down": (
        tell_nothing_made(Turn("api_down"), error="CloudError 4", creates=0, status=503, left=True),
        tell_nothing_made(
            Turn("api_down", match="launch|instances"), error="UnsettledCreate 4", creates=1, status=503, left=True
        ),
    ),
    "key_revoked": (
        tell_nothing_made(Turn("key_revoked"), error="CredentialError 3", creates=0, status=401, left=True),
    ),
    "rate_limit_now": (Story(turns=(Turn("rate_limit_now", True, 3),), status=429),),
    "nvidia_smi": (tell_bad_machine(Turn("nvidia_smi", "wrong_memory", 1), "gpu refused"),),
    "apt_get_fails": (Story(turns=(Turn("apt_get_fails"),), real=True),),
    "ip_after_s": (Story(turns=(Turn("ip_after_s", 150),), boot_s=140),),
    "active_after_s": (Story(turns=(Turn("active_after_s", 300),), boot_s=290),),
    "ssh_after_active_s": (Story(turns=(Turn("ssh_after_active_s", 90),), real=True, boot_s=140),),
    "ip_late": (Story(turns=(Turn("ip_late"),), boot_s=110),),
    "boot_stuck": (Story(turns=(Turn("boot_stuck", True, 1),), shows=REPLACED, machines=2, boot_s=400),),
    "launch_timeout_after_commit": (
        Story(
            turns=(Turn("launch_timeout_after_commit", 3, 1),),
            shows=ADOPTED,
            environ={"LEASEHOLD_REQUEST_TIMEOUT_S": "1.5"},
        ),
    ),
    "get_404_after_launch_s": (Story(turns=(Turn("get_404_after_launch_s", 9000),)),),
    "visible_after_s": (
        Story(turns=(Turn("visible_after_s", 250),), boot_s=240),
        Story(turns=(Turn("visible_after_s", 60), Turn("launch_500_after_commit", True, 1)), shows=ADOPTED),
    ),
    "unhealthy_at_s": (
        Story(
            turns=(Turn("unhealthy_at_s", 40, 1), SLOW_BOOT), shows=REPLACED, machines=2, boot_s=200, boot_within_s=350
        ),
    ),
    "unhealthy_for_s": (
        Story(turns=(Turn("unhealthy_for_s", 60, 1), Turn("unhealthy_at_s", 40, 1), SLOW_BOOT), boot_s=90),
    ),
    "preempted_at_s": (
        Story(turns=(Turn("preempted_at_s", 200, 1), SLOW_BOOT), shows=REPLACED, machines=2, boot_within_s=250),
    ),
    "capacity_lies": (
        Story(
            turns=(Turn("capacity_lies", "boasts"),),
            plans_before=False,
            places=("us-south-1", "us-west-3"),
            shows=ELSEWHERE,
            creates=2,
        ),
        Story(turns=(Turn("capacity_lies", "hides"),), plans_before=False),
    ),
    "provider_unavailable": (Story(turns=(Turn("provider_unavailable", True, 1),), creates=2, status=503),),
    "account_inactive": (
        tell_nothing_made(
            Turn("account_inactive", True, None, LAUNCH), error="CredentialError 3", creates=1, status=403
        ),
    ),
    "region_invalid_parameters": (
        Story(
            turns=(Turn("region_invalid_parameters"), Turn("capacity_race", match="us-west-3")),
            shows=ELSEWHERE,
            creates=2,
        ),
    ),
    "launch_not_found_404": (
        Story(
            turns=(Turn("launch_not_found_404"),),
            shows=("RequestRefused 4", "released"),
            machines=0,
            creates=2,
            status=404,
            environ={"LAMBDA_CLOUD_SSH_KEYS": "not-there"},
        ),
    ),
    "instance_quota": (tell_nothing_made(Turn("instance_quota", 0), error="RequestRefused 4", creates=2, status=400),),
    "terminate_500_but_done": (Story(turns=(Turn("terminate_500_but_done", True, 1),), status=500),),
    "terminate_404_mixed": (
        Story(turns=(Turn("terminate_404_mixed", "all"),), check=terminates_one_id_a_call),
        Story(turns=(Turn("terminate_404_mixed", "partial"),), check=terminates_one_id_a_call),
    ),
    "terminate_refused_booting": (
        Story(
            turns=(Turn("terminate_refused_booting"),),
            boots=False,
            shows=("made", "released"),
            status=400,
            release_s=40,
        ),
    ),
    "terminating_s": (Story(turns=(Turn("terminating_s", 100),), release_s=90),),
    "page_token_on_instances": (
        Story(turns=(Turn("page_token_on_instances", 1), Turn("launch_500_after_commit", True, 1)), shows=ADOPTED),
    ),
    "file_system_release_s": (
        Story(
            turns=(Turn("file_system_release_s", 3600),),
            prepare=add_file_system,
            settings={"file_system": "cache"},
            check=keeps_the_file_system,
        ),
    ),
    "request_interval_s": (Story(turns=(Turn("request_interval_s", 1.0),), slow=True, check=was_never_told_to_wait),),
    "request_burst": (Story(turns=(Turn("request_burst", 2),), slow=True, check=was_never_told_to_wait),),
    "launch_interval_s": (
        Story(
            turns=(Turn("launch_interval_s", 12), Turn("capacity_race", match="us-west-3")),
            shows=ELSEWHERE,
            creates=2,
            slow=True,
            check=keeps_the_pace_of_launches,
        ),
    ),
    "rate_limit_body": tuple(
        Story(turns=(Turn("rate_limit_body", body), Turn("rate_limit_now", True, 2)), status=429)
        for body in ("json", "html", "text", "empty")
    ),
    "rate_limit_retry_after": (
        Story(turns=(Turn("rate_limit_retry_after", 7), Turn("rate_limit_now", True, 2)), status=429),
    ),
}


def test_every_knob_has_a_story_that_turns_it() -> None:
    assert set(STORIES) == {knob.name for knob in LAMBDA_KNOBS}
    for knob, stories in STORIES.items():
        assert stories and all(knob in {turn.name for turn in story.turns} for story in stories), knob


@pytest.mark.parametrize(
    ("knob", "number"), [(knob, number) for knob in STORIES for number in range(len(STORIES[knob]))]
)
def test_a_fault_leads_to_its_outcome_in_time_and_leaves_nothing(knob: str, number: int, tmp_path: Path) -> None:
    tell("lambda", STORIES[knob][number], tmp_path)
