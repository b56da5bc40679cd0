"""RunPod and Lambda Cloud over real HTTP against the emulators, with real machines behind them."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.access import check_access
from providers.cloud import MachineState, Need, Offer
from schemas.errors import (
    CloudError,
    CredentialError,
    LeaseholdError,
    NoCapacity,
    RateLimited,
    RequestRefused,
    UnclearOutcome,
)
from schemas.names import make_prefix
from schemas.ssh import SshTarget, make_ssh_arguments, write_known_hosts
from tests.providers.cloud_bench import WAIT_S, Bench, open_bench, wait_until
from tests.providers.fake_api import HOST_KEYS, KEYS, TOKEN

pytestmark = pytest.mark.wire
CLOUDS = ("runpod", "lambda")


@pytest.fixture(params=CLOUDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with open_bench(request.param, tmp_path) as bench:
        yield bench


@pytest.fixture
def runpod(tmp_path: Path) -> Iterator[Bench]:
    with open_bench("runpod", tmp_path) as bench:
        yield bench


@pytest.fixture
def lambda_cloud(tmp_path: Path) -> Iterator[Bench]:
    with open_bench("lambda", tmp_path) as bench:
        yield bench


def test_a_machine_is_found_by_id_and_name_listed_and_given_back(bench: Bench) -> None:
    id, request = bench.launch()

    ready = bench.wait_for(id, "ready")
    by_name = bench.cloud.find(request.name)
    listed = bench.cloud.list_ours(make_prefix(TOKEN))

    assert by_name is not None and by_name.id == id
    assert [state.id for state in listed] == [id]
    assert ready.endpoint is not None and ready.price_usd_per_hour == request.offer.price_usd_per_hour
    assert ready.region == request.offer.region
    bench.give_back(id)
    bench.cloud.terminate(id)
    assert bench.cloud.list_ours("lh-") == []
    assert bench.emulator.live_machines() == []


@pytest.mark.parametrize(
    ("name", "fault"), [("runpod", "create_500_after_commit"), ("lambda", "launch_500_after_commit")]
)
def test_a_create_that_failed_after_it_took_effect_is_unclear_and_found_by_name(
    name: str, fault: str, tmp_path: Path
) -> None:
    with open_bench(name, tmp_path) as bench:
        bench.emulator.set_fault(fault, count=1)
        request = bench.make_request()

        with pytest.raises(UnclearOutcome):
            bench.cloud.launch(request)
        found = bench.cloud.find(request.name)

        assert found is not None
        assert len(bench.emulator.live_machines()) == 1
        bench.give_back(found.id)


@pytest.mark.parametrize(
    ("name", "fault"), [("runpod", "create_hang_after_commit"), ("lambda", "launch_timeout_after_commit")]
)
def test_a_create_without_an_answer_is_unclear_and_found_by_name(name: str, fault: str, tmp_path: Path) -> None:
    with open_bench(name, tmp_path) as bench:
        bench.emulator.set_fault(fault, 4, count=1)
        request = bench.make_request()

        with pytest.raises(UnclearOutcome, match="Timeout"):
            bench.cloud.launch(request)

        assert bench.cloud.find(request.name) is not None


@pytest.mark.parametrize(
    ("name", "fault", "value", "phase"),
    [
        ("runpod", "exits_after_s", 5, "failed"),
        ("runpod", "error_after_s", 5, "failed"),
        ("runpod", "ssh_never", True, "starting"),
        ("runpod", "stuck_provisioning", True, "starting"),
        ("runpod", "mode", "A", "ready"),
        ("lambda", "boot_stuck", True, "starting"),
        ("lambda", "unhealthy_at_s", 300, "starting"),
        ("lambda", "get_404_after_launch_s", 9000, "ready"),
        ("lambda", "ip_late", True, "ready"),
        ("lambda", "preempted_at_s", 5, "gone"),
    ],
)
def test_a_fault_of_the_boot_shows_as_the_phase_it_is(
    name: str, fault: str, value: object, phase: str, tmp_path: Path
) -> None:
    with open_bench(name, tmp_path, speed=1.0) as bench:
        bench.emulator.set_fault(fault, value)
        id, _ = bench.launch()

        bench.emulator.advance(600)
        state = bench.cloud.find(id)

        assert (state.phase if state is not None else "gone") == phase


@pytest.mark.parametrize(("name", "fault"), [("runpod", "create_visible_after_s"), ("lambda", "visible_after_s")])
def test_a_machine_that_becomes_visible_late_is_none_until_then(name: str, fault: str, tmp_path: Path) -> None:
    with open_bench(name, tmp_path, speed=1.0) as bench:
        bench.emulator.set_fault(fault, 60)
        id, request = bench.launch()

        assert bench.cloud.find(id) is None and bench.cloud.find(request.name) is None
        bench.emulator.advance(60)
        assert bench.cloud.find(id) is not None and bench.cloud.find(request.name) is not None


def test_a_deleted_pod_is_there_as_long_as_the_service_lists_it(tmp_path: Path) -> None:
    with open_bench("runpod", tmp_path, speed=1.0) as bench:
        bench.emulator.set_fault("delete_lag_s", 60)
        id, _ = bench.launch()

        bench.cloud.terminate(id)
        assert bench.cloud.find(id) is not None
        bench.emulator.advance(61)
        assert bench.cloud.find(id) is None


def test_the_edge_that_refuses_clients_is_not_taken_for_a_wrong_key(runpod: Bench) -> None:
    runpod.emulator.set_fault("edge_1010_html")

    with pytest.raises(CloudError, match="network edge"):
        runpod.cloud.list_ours("lh-")


@pytest.mark.parametrize("name", CLOUDS)
def test_a_create_that_is_told_to_wait_makes_nothing_and_works_later(name: str, tmp_path: Path) -> None:
    with open_bench(name, tmp_path) as bench:
        request = bench.make_request()
        bench.emulator.set_fault("rate_limit_now", count=1)

        with contextlib.suppress(RateLimited):
            bench.cloud.launch(request)
        made = len(bench.emulator.live_machines())
        id = bench.launch(1)[0]

        assert len(bench.emulator.live_machines()) == made + 1
        assert bench.cloud.find(id) is not None


def test_an_instance_that_is_listed_but_not_there_is_no_capacity(lambda_cloud: Bench) -> None:
    def list_available() -> dict[tuple[str, str], Offer]:
        offers = lambda_cloud.cloud.offers(Need())
        return {(offer.gpu_id, offer.region): offer for offer in offers if offer.available}

    true = list_available()
    lambda_cloud.emulator.set_fault("capacity_lies", "boasts")
    boasted = [offer for key, offer in list_available().items() if key not in true]

    assert boasted
    with pytest.raises(NoCapacity):
        lambda_cloud.launch(offer=boasted[0])
    assert lambda_cloud.emulator.live_machines() == []


def test_no_capacity_is_told_from_a_refusal(bench: Bench) -> None:
    request = bench.make_request()
    bench.emulator.set_fault("capacity_race")

    with pytest.raises(NoCapacity):
        bench.cloud.launch(request)
    assert bench.emulator.live_machines() == []


@pytest.mark.parametrize(
    ("name", "fault", "error"),
    [
        ("runpod", "insufficient_balance_402", RequestRefused),
        ("runpod", "pool_403", RequestRefused),
        ("lambda", "account_inactive", CredentialError),
        ("lambda", "region_invalid_parameters", NoCapacity),
        ("lambda", "provider_unavailable", UnclearOutcome),
    ],
)
def test_a_refusal_of_the_service_becomes_its_own_error(
    name: str, fault: str, error: type[LeaseholdError], tmp_path: Path
) -> None:
    with open_bench(name, tmp_path) as bench:
        request = bench.make_request()
        if name == "lambda":
            bench.cloud.register_key("lh-abcdefghijkl-key-aaaaaa", KEYS.public)
        if fault == "region_invalid_parameters":
            bench.emulator.set_fault("capacity_race")
        bench.emulator.set_fault(fault)

        with pytest.raises(error):
            bench.launch(offer=request.offer)
        assert bench.emulator.live_machines() == []


@pytest.mark.parametrize(
    ("name", "fault"), [("runpod", "empty_401"), ("runpod", "key_revoked"), ("lambda", "key_revoked")]
)
def test_a_refused_key_is_a_credential_error(name: str, fault: str, tmp_path: Path) -> None:
    with open_bench(name, tmp_path) as bench:
        bench.emulator.set_fault(fault)

        with pytest.raises(CredentialError, match="_API_KEY"):
            bench.cloud.list_ours("lh-")
        assert check_access(name, bench.cloud).state == "refused"


def test_access_is_reported(bench: Bench) -> None:
    report = check_access(bench.name, bench.cloud)

    assert (report.state, report.can_list, report.can_price) == ("ok", True, True)
    assert report.offers > 0


def test_the_older_runpod_gets_the_command_as_json_text(tmp_path: Path) -> None:
    with open_bench("runpod", tmp_path, contract="august") as bench:
        id, _ = bench.launch()
        posts = [exchange.status for exchange in bench.emulator.history() if exchange.method == "POST"]

        assert posts == [422, 201]
        bench.give_back(id)


def test_every_page_is_walked(runpod: Bench) -> None:
    runpod.emulator.set_fault("page_cap", 2)
    ids = {runpod.launch(index)[0] for index in range(5)}

    assert {state.id for state in runpod.cloud.list_ours(make_prefix(TOKEN))} == ids


def test_pages_of_instances_are_walked_too(lambda_cloud: Bench) -> None:
    ids = {lambda_cloud.launch(index)[0] for index in range(3)}
    lambda_cloud.emulator.set_fault("page_token_on_instances", 1)

    assert {state.id for state in lambda_cloud.cloud.list_ours(make_prefix(TOKEN))} == ids


def test_a_delete_that_says_500_but_takes_effect_ends_well(runpod: Bench) -> None:
    id, _ = runpod.launch()
    runpod.emulator.set_fault("delete_500_but_done", count=1)

    runpod.give_back(id)

    assert runpod.emulator.live_machines() == []


def test_the_retired_api_is_known_by_its_410(runpod: Bench) -> None:
    old = runpod.make_cloud(RUNPOD_BASE_URL=runpod.emulator.base_url.replace("/v2", "/v1"))

    assert check_access("runpod", old).state == "retired"


@pytest.mark.parametrize("body", ["json", "html", "text", "empty"])
def test_a_429_of_any_shape_is_waited_out(body: str, tmp_path: Path) -> None:
    with open_bench("lambda", tmp_path) as bench:
        bench.emulator.set_fault("rate_limit_body", body)
        bench.emulator.set_fault("rate_limit_now", count=2)

        assert bench.cloud.list_ours("lh-") == []


def test_the_pace_of_lambda_is_kept_so_that_it_never_has_to_say_429(tmp_path: Path) -> None:
    with open_bench("lambda", tmp_path, speed=20.0) as bench:
        bench.cloud = bench.make_cloud(LEASEHOLD_EMULATOR_PACE="20")
        # Not 1: a busy computer brings two requests closer together than they were sent.
        bench.emulator.set_fault("request_burst", 2)
        for index in range(3):
            bench.launch(index)
        for _ in range(5):
            bench.cloud.list_ours("lh-")

        assert [exchange.path for exchange in bench.emulator.history() if exchange.status == 429] == []


def test_a_bill_is_read(runpod: Bench) -> None:
    id, _ = runpod.launch()
    start = runpod.emulator.now() - 3600
    runpod.emulator.advance(7200)

    billed = runpod.cloud.billed_usd(id, start=start, end=runpod.emulator.now() + 3600)

    assert billed is not None and billed > 1.0


def test_a_jobs_key_is_registered_listed_and_removed(lambda_cloud: Bench) -> None:
    cloud: Any = lambda_cloud.cloud
    name = "lh-abcdefghijkl-key-aaaaaa"

    cloud.register_key(name, KEYS.public)
    cloud.register_key(name, KEYS.public)
    assert cloud.list_keys("lh-") == [name]
    cloud.remove_key(name)
    cloud.remove_key(name)
    assert cloud.list_keys("lh-") == []


def run_over_ssh(state: MachineState, folder: Path, command: str) -> str:
    assert state.endpoint is not None
    key_file = folder / "id"
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(KEYS.private)
    write_known_hosts(folder / "known", "machine", HOST_KEYS.public)
    target = SshTarget(
        **msgspec.structs.asdict(state.endpoint),
        key_file=str(key_file),
        known_hosts_file=str(folder / "known"),
        alias="machine",
    )
    done = subprocess.run(
        [*make_ssh_arguments(target), command], capture_output=True, text=True, timeout=WAIT_S, stdin=subprocess.DEVNULL
    )
    return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"


@pytest.mark.parametrize("name", CLOUDS)
def test_ssh_answers_with_the_host_key_that_we_made(name: str, tmp_path: Path) -> None:
    with open_bench(name, tmp_path, real_machines=True) as bench:
        id, _ = bench.launch()
        state = bench.wait_for(id, "ready")

        wait_until(lambda: run_over_ssh(state, tmp_path, "echo hello").startswith("hello"))

        bench.give_back(id)


def test_the_dead_man_of_a_pod_ends_it_at_its_expiry(tmp_path: Path) -> None:
    with open_bench("runpod", tmp_path, real_machines=True) as bench:
        request = bench.make_request()
        id, _ = bench.launch(expires_at=int(time.time()) + 4, name=request.name)

        wait_until(lambda: bench.cloud.find(id) is None)

        deletes = [exchange for exchange in bench.emulator.history() if exchange.method == "DELETE"]
        assert len(deletes) >= 1 and deletes[0].status == 204


def test_an_image_without_sshd_leaves_its_reason_in_the_log(tmp_path: Path) -> None:
    with open_bench("runpod", tmp_path, real_machines=True) as bench:
        bench.emulator.set_fault("apt_get_fails")
        id, _ = bench.launch(image="no-sshd:latest")

        wait_until(lambda: "this image has no sshd" in bench.cloud.logs(id))
        bench.cloud.terminate(id)
