"""The local cloud as its callers see it: launch, find, list, terminate, from one process or several."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from providers.cloud import Cloud, Need
from providers.local.local import LocalCloud, find_root, make_local_cloud
from providers.local.processes import find_processes
from schemas.errors import CloudError, NoCapacity, SpecError, UnclearOutcome

pytestmark = pytest.mark.wire


def as_cloud(cloud: Cloud) -> Cloud:
    """A type checker refuses this file when LocalCloud breaks the protocol."""
    return cloud


def test_a_machine_is_launched_at_once_becomes_ready_runs_commands_and_is_gone_after_terminate(
    local_bench: Any,
) -> None:
    cloud = as_cloud(local_bench.make_cloud())
    request = local_bench.make_request()

    started = time.monotonic()
    id = cloud.launch(request)
    launch_s = time.monotonic() - started
    seen_at_once = cloud.find(id)
    state = local_bench.wait_ready(id)
    ready_s = time.monotonic() - started
    answer = local_bench.ssh(state, "echo $LEASEHOLD_MACHINE_ID").stdout.decode().strip()
    log = cloud.logs(id)
    cloud.terminate(id)

    assert launch_s < 0.5 and ready_s < 5
    assert seen_at_once is not None and seen_at_once.name == request.name
    assert (state.cloud, state.name, state.price_usd_per_hour, state.region) == ("local", request.name, 1.25, "local")
    assert abs(state.created_at - time.time()) < 20
    assert answer == id
    assert f"machine {id} ({request.name}) starts" in log and "SSH answers" in log
    assert cloud.find(id) is None and cloud.find(request.name) is None
    assert list(cloud.list_ours("")) == []
    assert find_processes(local_bench.root / id) == []
    assert [path.name for path in local_bench.root.iterdir()] == []


def test_terminate_takes_gone_and_unknown_and_impossible_ids_for_success(local_bench: Any) -> None:
    cloud = local_bench.make_cloud()
    id = local_bench.launch_ready().id
    cloud.terminate(id)

    for gone in (id, "never-was", "../../etc", "", "."):
        cloud.terminate(gone)
        assert cloud.find(gone) is None
        assert cloud.logs(gone) == ""


def test_two_machines_live_at_once_and_one_ends_without_the_other(local_bench: Any) -> None:
    cloud = local_bench.make_cloud()
    first, second = (cloud.launch(local_bench.make_request(index=index)) for index in range(2))
    states = [local_bench.wait_ready(id) for id in (first, second)]
    homes = {local_bench.ssh(state, "pwd").stdout for state in states}
    cloud.terminate(first)

    assert len(homes) == 2
    assert [state.id for state in cloud.list_ours("lh-")] == [second]
    assert local_bench.ssh(states[1], "echo alive").stdout == b"alive\n"


def test_machines_of_one_name_are_all_listed_and_one_of_them_is_found(local_bench: Any) -> None:
    cloud = local_bench.make_cloud()
    request = local_bench.make_request()
    ids = [cloud.launch(request), cloud.launch(request)]

    assert sorted(state.id for state in cloud.list_ours(request.name)) == sorted(ids)
    found = cloud.find(request.name)
    assert found is not None and found.id == ids[0]


def test_a_listing_takes_only_names_with_the_prefix(local_bench: Any) -> None:
    cloud = local_bench.make_cloud()
    foreign = cloud.launch(local_bench.make_request(name="lh-zzzzzzzzzzzz-0x0-zzzzzz"))
    ours = cloud.launch(local_bench.make_request())

    assert [state.id for state in cloud.list_ours("lh-abcdefghijkl-")] == [ours]
    assert {state.id for state in cloud.list_ours("lh-")} == {ours, foreign}


def test_another_process_lists_and_terminates_by_the_root_alone(local_bench: Any) -> None:
    state = local_bench.launch_ready()
    script = (
        "import sys; from pathlib import Path; from providers.local.local import LocalCloud\n"
        "cloud = LocalCloud(Path(sys.argv[1])); machines = cloud.list_ours('lh-')\n"
        "print([(m.id, m.phase) for m in machines]); [cloud.terminate(m.id) for m in machines]"
    )
    other = run_python(script, str(local_bench.root))

    assert other.stdout.strip() == str([(state.id, "ready")])
    assert local_bench.make_cloud().find(state.id) is None


def test_a_caller_that_launches_and_ends_is_not_held_up_by_its_machine(local_bench: Any) -> None:
    """The machine must not keep the caller's pipes open: whoever waits for their end would hang."""
    script = (
        "import sys, msgspec; from pathlib import Path; from providers.local.local import LocalCloud\n"
        "from providers.cloud import LaunchRequest\n"
        "print(LocalCloud(Path(sys.argv[1])).launch(msgspec.json.decode(sys.stdin.read(), type=LaunchRequest)))"
    )
    started = time.monotonic()
    caller = run_python(script, str(local_bench.root), data=msgspec.json.encode(local_bench.make_request()).decode())
    caller_s = time.monotonic() - started
    state = local_bench.wait_ready(caller.stdout.strip())

    assert caller_s < 5
    for process in find_processes(local_bench.root / state.id):
        assert process.cwd() == "/"
        assert os.getsid(process.pid) != os.getsid(0)


def test_nothing_of_the_callers_environment_reaches_the_machine(
    local_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "sesame-open-4711")
    state = local_bench.launch_ready()
    engine = local_bench.start_engine(state)
    environments = [str(process.environ()) for process in find_processes(local_bench.root / state.id)]

    assert engine.environ()["LEASEHOLD_MACHINE_ID"] == state.id
    assert len(environments) >= 4
    assert not [text for text in environments if "sesame-open-4711" in text or "RUNPOD_API_KEY" in text]


def test_the_files_of_a_machine_are_its_owners_only(local_bench: Any) -> None:
    state = local_bench.launch_ready()
    folder = local_bench.root / state.id

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "host_key").stat().st_mode & 0o777 == 0o600
    others = [path for path in folder.iterdir() if path.is_file() and path.name != "host_key"]
    assert local_bench.host_private_key.splitlines()[1] not in "".join(path.read_text() for path in others)


def test_the_engine_command_is_on_the_path_and_shims_come_before_it(local_bench: Any, tmp_path: Path) -> None:
    shim = tmp_path / "nvidia-smi"
    shim.write_text("#!/bin/sh\necho 'a GPU'\n")
    shim.chmod(0o755)
    state = local_bench.launch_ready(settings={"shims": str(tmp_path)})

    seen = local_bench.ssh(state, "nvidia-smi; command -v llamacpp-server").stdout.decode().splitlines()
    assert seen == ["a GPU", str(local_bench.root / state.id / "bin" / "llamacpp-server")]


def test_launches_at_the_same_time_never_exceed_the_capacity(local_bench: Any) -> None:
    cloud = local_bench.make_cloud(capacity=2)

    barrier = threading.Barrier(4)

    def launch(index: int) -> str:
        request = local_bench.make_request(index=index)
        barrier.wait(timeout=10)
        try:
            return str(cloud.launch(request))
        except NoCapacity:
            return ""

    with ThreadPoolExecutor(4) as pool:
        ids = list(filter(None, pool.map(launch, range(4))))

    assert len(ids) == 2 == len(cloud.list_ours("lh-"))
    assert [offer.available for offer in cloud.offers(Need())] == [False]
    cloud.terminate(ids[0])
    assert [offer.available for offer in cloud.offers(Need())] == [True]
    assert cloud.launch(local_bench.make_request(index=9))


def test_a_root_that_cannot_be_written_is_one_clear_error(tmp_path: Path, local_bench: Any) -> None:
    (tmp_path / "file").write_text("")
    cloud = LocalCloud(tmp_path / "file" / "cloud")

    with pytest.raises(CloudError, match="cannot start a machine on this computer") as raised:
        cloud.launch(local_bench.make_request())
    assert str(tmp_path) in str(raised.value)


def test_an_empty_root_lists_nothing_and_is_not_made(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "none")

    assert (cloud.list_ours(""), cloud.find("x")) == ([], None)
    assert not (tmp_path / "none").exists()


def test_an_offer_tells_the_price_and_this_computers_memory(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path, price_usd_per_hour=2.5)
    (offer,) = cloud.offers(Need(gpu="cpu", count=3, regions=("local",)))

    assert (offer.cloud, offer.gpu, offer.count, offer.price_usd_per_hour) == ("local", "cpu", 3, 2.5)
    assert offer.memory_gb == psutil.virtual_memory().total // 2**30
    assert cloud.offers(Need(min_gb=1_000_000)) == ()


@pytest.mark.parametrize("need", [Need(gpu="H100"), Need(tier="secure"), Need(regions=("US-KS-2",))])
def test_a_need_that_this_computer_cannot_mean_is_a_mistake_in_the_job(tmp_path: Path, need: Need) -> None:
    with pytest.raises(SpecError, match="cloud local"):
        LocalCloud(tmp_path).offers(need)


def test_the_root_comes_from_the_environment_in_this_order() -> None:
    assert find_root({"LEASEHOLD_LOCAL_CLOUD_DIR": "/a", "XDG_STATE_HOME": "/b"}) == Path("/a")
    assert find_root({"XDG_STATE_HOME": "/b", "HOME": "/c"}) == Path("/b/leasehold/local-cloud")
    assert find_root({"HOME": "/c"}) == Path("/c/.local/state/leasehold/local-cloud")


def test_the_faults_of_the_environment_befall_the_machines_they_name(local_bench: Any) -> None:
    fault = "no-capacity@1,unclear@2,exit@3,host-key@4"
    cloud = make_local_cloud({"LEASEHOLD_LOCAL_CLOUD_DIR": str(local_bench.root), "LEASEHOLD_LOCAL_FAULT": fault})
    requests = [local_bench.make_request(index=index) for index in range(5)]

    with pytest.raises(NoCapacity):
        cloud.launch(requests[1])
    with pytest.raises(UnclearOutcome):
        cloud.launch(requests[2])
    assert cloud.find(requests[1].name) is None
    assert cloud.find(requests[2].name) is not None
    failing = cloud.launch(requests[3])
    local_bench.wait_until(lambda: getattr(cloud.find(failing), "phase", "") == "failed")
    assert "asked to fail" in cloud.logs(failing)
    refused = local_bench.ssh(local_bench.wait_ready(cloud.launch(requests[4])), "echo reached")
    assert (refused.returncode, refused.stdout) == (255, b"")
    answer = local_bench.ssh(local_bench.wait_ready(cloud.launch(requests[0])), "echo reached")
    assert answer.stdout == b"reached\n"


def run_python(script: str, *arguments: str, data: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        input=data,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
