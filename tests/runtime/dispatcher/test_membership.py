"""Machines over real SSH: they join late, drain, vanish, lose their tunnel; and nothing of ours outlives the dispatcher."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from runtime.dispatcher.manifest import DispatchOptions
from tests.runtime.conftest import Bench, Engines, Results, wait_until
from tests.runtime.ssh_machine import SshMachine
from tests.runtime.stub_engine import StubEngine

pytestmark = pytest.mark.wire


class Site:
    """Machines with an engine each, all reached with one client key."""

    def __init__(self, bench: Bench, engines: Engines) -> None:
        self.bench, self.engines = bench, engines
        self.machines: list[SshMachine] = []
        self.key_file = bench.folder / "id"

    def add(self, **options: Any) -> tuple[SshMachine, StubEngine]:
        engine = self.engines.add(**options)
        machine = SshMachine(self.bench.folder, index=len(self.machines), engine_port=engine.port)
        if self.machines:
            machine.client_key = self.machines[0].client_key
        else:
            machine.client_key.write_private_key(str(self.key_file))
            self.key_file.chmod(0o600)
        self.engines.do(machine.start())
        self.machines.append(machine)
        return machine, engine

    def start(self, **fields: Any) -> Any:
        return self.bench.start(ssh_key_file=str(self.key_file), **fields)

    def wait_for_end(self, process: Any) -> Results:
        assert process.wait(20) == 0, (self.bench.folder / "dispatch.log").read_text()
        return Results(self.bench.output)

    def close(self) -> None:
        for machine in self.machines:
            self.engines.do(machine.stop())


@pytest.fixture
def site(bench: Bench, engines: Engines) -> Iterator[Site]:
    site = Site(bench, engines)
    yield site
    site.close()


def tunnels_of(bench: Bench) -> list[psutil.Process]:
    """ssh processes (and their guards) that serve this bench's sockets."""
    mark = str(bench.sockets)
    return [process for process in psutil.process_iter(["cmdline"]) if mark in " ".join(process.info["cmdline"] or ())]


def replica_is(bench: Bench, index: int, *states: str) -> Callable[[], bool]:
    def holds() -> bool:
        progress = bench.read_progress()
        return progress is not None and any(
            replica.index == index and replica.state in states for replica in progress.replicas
        )

    return holds


def test_a_batch_runs_through_a_tunnel_with_the_key_and_a_heartbeat(site: Site) -> None:
    machine, engine = site.add(key="secret")
    (site.bench.folder / "engine.key").write_text("secret")
    ids = site.bench.write_requests(200)
    machine.write_record(site.bench.machines)

    results = site.wait_for_end(site.start(engine_key_file=str(site.bench.folder / "engine.key")))

    assert results.output.keys() == ids
    assert engine.requests == 200
    assert machine.heartbeat.exists()
    assert tunnels_of(site.bench) == []
    assert not list(site.bench.sockets.glob("*.sock"))


def test_a_machine_that_joins_late_takes_part_and_one_that_drains_loses_nothing(site: Site) -> None:
    (first, first_engine), (second, second_engine) = site.add(delay_s=0.05), site.add(delay_s=0.05)
    ids = site.bench.write_requests(800)
    first.write_record(site.bench.machines)
    process = site.start(options=DispatchOptions(max_concurrency=16, hedge=False))
    wait_until(lambda: first_engine.requests > 20)
    second.write_record(site.bench.machines)
    wait_until(lambda: second_engine.requests > 20)

    (site.bench.machines / "0.leaving").touch()
    wait_until((site.bench.machines / "0.drained").exists)
    sent_when_drained = first_engine.requests
    results = site.wait_for_end(process)

    assert results.output.keys() == ids
    assert first_engine.requests == sent_when_drained
    assert first_engine.aborted == second_engine.aborted == 0
    assert first_engine.requests + second_engine.requests == len(ids)


def test_a_machine_whose_record_vanishes_is_left_at_once(site: Site) -> None:
    (first, first_engine), (second, _) = site.add(delay_s=60.0), site.add(delay_s=0.01)
    ids = site.bench.write_requests(100)
    first.write_record(site.bench.machines)
    process = site.start(options=DispatchOptions(max_concurrency=8, hedge=False))
    wait_until(lambda: first_engine.running == 8)
    second.write_record(site.bench.machines)
    wait_until(lambda: site.bench.count_done() == 92)

    (site.bench.machines / "0.json").unlink()
    results = site.wait_for_end(process)

    assert results.output.keys() == ids
    wait_until(lambda: first_engine.aborted == 8)


def test_a_leaving_machine_that_was_never_ready_is_drained_at_once(site: Site) -> None:
    machine, _ = site.add()
    site.bench.write_requests(1)
    machine.write_record(site.bench.machines)
    (site.bench.machines / "0.leaving").touch()
    process = site.start()

    wait_until((site.bench.machines / "0.drained").exists)

    process.terminate()
    assert process.wait(5) == 0
    assert machine.logins == 0


def test_a_new_attempt_under_the_same_index_takes_the_place_of_the_old_one(site: Site) -> None:
    machine, engine = site.add(delay_s=0.02)
    ids = site.bench.write_requests(600)
    machine.write_record(site.bench.machines)
    process = site.start(options=DispatchOptions(max_concurrency=8))
    wait_until(lambda: engine.requests > 20)

    machine.write_record(site.bench.machines, attempt=1)
    results = site.wait_for_end(process)

    assert results.output.keys() == ids
    assert "machine-0x1 is ready" in (site.bench.folder / "dispatch.log").read_text()


def test_a_tunnel_that_dies_is_opened_again_and_costs_no_attempts(site: Site) -> None:
    machine, engine = site.add(delay_s=0.02)
    ids = site.bench.write_requests(600)
    machine.write_record(site.bench.machines)
    process = site.start(options=DispatchOptions(max_concurrency=8, max_retries=0))
    wait_until(lambda: engine.requests > 20)

    [tunnel] = [found for found in tunnels_of(site.bench) if found.name() == "ssh"]
    tunnel.kill()
    results = site.wait_for_end(process)

    assert results.output.keys() == ids
    assert results.progress.redone > 0


def test_an_engine_that_is_not_there_yet_is_waited_for(site: Site) -> None:
    machine, engine = site.add()
    site.engines.call(engine.die)
    ids = site.bench.write_requests(10)
    machine.write_record(site.bench.machines)
    process = site.start()
    wait_until(lambda: machine.logins >= 2)
    wait_until(replica_is(site.bench, 0, "connecting"))

    site.engines.call(engine.revive)

    assert site.wait_for_end(process).output.keys() == ids


def test_a_wrong_host_key_is_never_talked_to(site: Site) -> None:
    (machine, engine), (other, _) = site.add(), site.add()
    site.bench.write_requests(3)
    machine.host_key = other.host_key
    machine.write_record(site.bench.machines)
    process = site.start()
    log = site.bench.folder / "dispatch.log"

    wait_until(lambda: b"Host key verification failed" in log.read_bytes())

    assert engine.requests == 0
    assert not machine.heartbeat.exists()
    process.terminate()
    assert process.wait(5) == 0


def test_no_ssh_outlives_a_dispatcher_that_was_killed_and_the_next_one_works(site: Site) -> None:
    machine, engine = site.add(delay_s=0.05)
    ids = site.bench.write_requests(300)
    machine.write_record(site.bench.machines)
    process = site.start()
    wait_until(lambda: engine.requests > 20)
    assert tunnels_of(site.bench)

    process.kill()
    process.wait()
    wait_until(lambda: not tunnels_of(site.bench), timeout_s=5)
    assert (site.bench.sockets / "0.sock").exists()

    assert site.wait_for_end(site.start()).output.keys() == ids


def test_ctrl_c_at_the_whole_group_leaves_the_tunnels_until_the_last_answer(site: Site) -> None:
    machine, engine = site.add(delay_s=0.5)
    site.bench.write_requests(200)
    machine.write_record(site.bench.machines)
    process = site.start(options=DispatchOptions(max_concurrency=4))
    wait_until(lambda: engine.running == 4)

    assert all(os.getpgid(tunnel.pid) != os.getpgid(process.pid) for tunnel in tunnels_of(site.bench))
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    results = site.wait_for_end(process)

    assert time.monotonic() - began < 5
    assert engine.aborted == 0
    assert len(results.output) == engine.requests
