"""Whole runs on RunPod and Lambda Cloud, emulated: the real Pulumi engine, real SSH, real start scripts, a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.emulated_clouds import (
    IN_CALIFORNIA,
    IN_KANSAS,
    ON_LAMBDA,
    ON_RUNPOD,
    RUNPOD_H100,
    EmulatedClouds,
    assert_all_answered,
    events,
    open_emulated_clouds,
    posts,
)
from tests.journeys.onlooker import Onlooker, find_secrets, read_files, read_unique_line
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

HUB_TOKEN = "hf_0123456789abcdefghijklmnopqrstuvwx"


@pytest.fixture
def clouds(workshop: Workshop) -> Iterator[EmulatedClouds]:
    with open_emulated_clouds(workshop) as made:
        yield made


def test_a_batch_through_runpod(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    done = clouds.run(clouds.write_job("pods", [ON_RUNPOD], replicas=2))

    assert done.returncode == 0, done.stderr
    assert_all_answered(clouds, "pods")
    assert len(clouds.machines()) == 2
    assert not [exchange for exchange in clouds.running["runpod"].history() if exchange.broken]


def test_a_batch_through_lambda_leaves_no_key_in_the_account(clouds: EmulatedClouds) -> None:
    clouds.open("lambda")
    done = clouds.run(clouds.write_job("instances", [ON_LAMBDA], replicas=2))

    assert done.returncode == 0, done.stderr
    assert_all_answered(clouds, "instances")
    (added,) = posts(clouds, "lambda", "/ssh-keys")
    assert added.status == 200 and added.body["name"].startswith("lh-")
    assert len(clouds.machines()) == 2


def test_a_candidate_without_capacity_falls_through_to_the_next_cloud(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    clouds.running["runpod"].set_fault("capacity_race")
    done = clouds.run(clouds.write_job("either", [IN_KANSAS, IN_CALIFORNIA]))

    assert done.returncode == 0, done.stderr
    assert_all_answered(clouds, "either")
    assert [each.status for each in posts(clouds, "runpod", "/pods")] == [400]
    assert [machine.cloud for machine in clouds.machines()] == ["lambda"]
    assert "no capacity for 1 x H100-SXM" in done.stderr


def test_no_secret_is_to_be_seen_anywhere(clouds: EmulatedClouds) -> None:
    """One machine on each cloud, with a model that needs a token; everything that anybody could read is searched."""
    clouds.open("runpod", "lambda")
    clouds.running["runpod"].set_stock(RUNPOD_H100, "US-KS-2", 1, tier="SECURE")
    # Both at the same time, and a batch that lasts until both work.
    clouds.running["runpod"].set_fault("ssh_after_s", 60)
    job = clouds.write_job(
        "discreet",
        [IN_KANSAS, IN_CALIFORNIA],
        template=None,
        deploy=clouds.make_deployment(auth_secret_ref="env:HF_TOKEN"),
        replicas=2,
        lines=400,
        max_tokens=100,
    )
    workshop = clouds.workshop
    folder = workshop.run_dir("discreet")

    with Onlooker(workshop.home / "state") as seen:
        done = workshop.inv("run", str(job), "--run", "discreet", "--yes", "--keep", HF_TOKEN=HUB_TOKEN)

    assert done.returncode == 0, done.stderr
    assert {machine.cloud for machine in clouds.machines()} == {"runpod", "lambda"}
    keys = [path for path in (folder / "hostkeys").iterdir() if path.suffix == ""]
    secrets = {
        **{f"key of {name}": emulator.key for name, emulator in clouds.running.items()},
        "token": HUB_TOKEN,
        "engine key": (folder / "engine.key").read_text(),
        "client key": read_unique_line(folder / "id_ed25519"),
    }
    host_keys = {f"host key {path.name}": read_unique_line(path) for path in keys}
    everything = secrets | host_keys
    assert len(host_keys) >= 2
    bodies = [(f"body {each.number}", json.dumps(each.body)) for each in all_exchanges(clouds)]
    commands = [(f"argv {text[:60]!r}", text) for text in seen.command_lines]
    states = [(f"state {path}", text) for (path, _), text in seen.states.items()]
    files = read_files(workshop.home, but=[folder / "engine.key", folder / "id_ed25519", folder / "hostkeys"])
    places = [*bodies, *commands, *states, *files, ("stdout", done.stdout), ("stderr", done.stderr)]
    # The search sees what there is: the pod's start, both engines' command lines, both machines in the state.
    assert find_secrets(host_keys, bodies) and find_secrets({"served name": "qwen2.5-7b"}, commands)
    assert any("engine-0" in text and "engine-1" in text and "ciphertext" in text for _, text in states)
    assert {"events.jsonl", "pulumi.log", "dispatch.log"} <= {Path(place).name for place, _ in places}
    assert find_secrets(secrets, bodies) == []
    assert find_secrets(everything, [place for place in places if not place[0].startswith("body")]) == []
    assert_all_answered(clouds, "discreet", lines=400)


def all_exchanges(clouds: EmulatedClouds) -> list[Any]:
    return [exchange for emulator in clouds.running.values() for exchange in emulator.history()]


def test_a_key_that_may_only_read_is_exit_3_when_the_first_machine_is_refused(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    done = clouds.run(
        clouds.write_job("reader", [ON_RUNPOD]), RUNPOD_API_KEY=clouds.running["runpod"].key + "_read_only"
    )

    assert done.returncode == 3, done.stderr
    assert "RUNPOD_API_KEY" in done.stderr and "read and write for pods" in " ".join(done.stderr.split())
    assert clouds.workshop.status("reader")["released"] == "verified"
    assert [each.status for each in posts(clouds, "runpod", "/pods")] == [403]


def test_machines_boot_at_the_same_time_and_one_that_hangs_holds_back_none(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    boot_s = 5.0
    emulator = clouds.running["runpod"]
    emulator.set_fault("ssh_after_s", boot_s * clouds.speed)
    emulator.set_fault("ssh_never", match="-6x")
    done = clouds.run(clouds.write_job("many", [IN_KANSAS], replicas=7, lines=600, max_tokens=100))

    assert done.returncode == 0, done.stderr
    ready = [event["data"]["seconds"] for event in events(clouds, "many", "ssh_answers")]
    # Pulumi alone serves four at a time: then the fifth would need two boots.
    assert len(ready) == 6 and max(ready) < 1.7 * boot_s
    assert_all_answered(clouds, "many", lines=600)
