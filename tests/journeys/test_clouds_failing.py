"""What goes wrong on RunPod and Lambda Cloud, emulated, and what a whole run makes of it; each ends with nothing left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from providers.emulators.machines.shim_folder import has_real_sshd
from tests.journeys.emulated_clouds import (
    IN_CALIFORNIA,
    IN_KANSAS,
    ON_RUNPOD,
    EmulatedClouds,
    assert_all_answered,
    events,
    open_emulated_clouds,
)
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


@pytest.fixture
def clouds(workshop: Workshop) -> Iterator[EmulatedClouds]:
    with open_emulated_clouds(workshop) as made:
        yield made


def test_no_capacity_anywhere_is_exit_11_with_what_was_tried_in_order(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    for emulator in clouds.running.values():
        emulator.set_fault("capacity_race")
    done = clouds.run(clouds.write_job("nowhere", [IN_KANSAS, IN_CALIFORNIA]))

    assert done.returncode == 11, done.stderr
    last = done.stderr.rpartition("tried in this order:")[2]
    assert "1. runpod H100-SXM x1 secure US-KS-2 at 2.99 USD/h: no capacity" in last
    assert "2. lambda A10 x1 us-west-1 at 1.29 USD/h: no capacity" in last
    assert clouds.workshop.status("nowhere")["released"] == "verified"
    assert clouds.machines() == []
    clouds.wait_until_nothing_is_left()


@pytest.mark.skipif(has_real_sshd(), reason="here no image can be without sshd")
def test_an_image_without_sshd_is_exit_4_with_the_pods_own_log(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    clouds.running["runpod"].set_fault("apt_get_fails")
    done = clouds.run(clouds.write_job("deaf", [IN_KANSAS]))

    assert done.returncode == 4, done.stderr
    log = (clouds.workshop.run_dir("deaf") / "boot-0.log").read_text()
    assert "sshd" in log and log.splitlines()[-1] in done.stderr
    status = clouds.workshop.status("deaf")
    assert (status["state"], status["released"]) == ("resource_failed", "verified")
    clouds.wait_until_nothing_is_left()


def test_a_machine_whose_gpu_does_not_answer_is_replaced_by_the_next_offer(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    clouds.running["runpod"].set_fault("nvidia_smi", "wrong_memory", count=1)
    done = clouds.run(clouds.write_job("blind", [{**ON_RUNPOD, "regions": ["US-KS-2", "US-TX-3"]}]))

    assert done.returncode == 0, done.stderr
    assert [machine.region for machine in clouds.machines()] == ["US-KS-2", "US-TX-3"]
    assert len(events(clouds, "blind", "machine_replaced")) == 1
    assert_all_answered(clouds, "blind")


@pytest.mark.parametrize(
    ("candidate", "fault", "value"),
    [(IN_KANSAS, "create_hang_after_commit", 6), (IN_CALIFORNIA, "launch_500_after_commit", True)],
)
def test_a_create_whose_answer_is_lost_is_adopted_and_made_once(
    clouds: EmulatedClouds, candidate: dict[str, Any], fault: str, value: object
) -> None:
    clouds.open(candidate["cloud"])
    clouds.running[candidate["cloud"]].set_fault(fault, value, count=1)
    done = clouds.run(clouds.write_job("unclear", [candidate]))

    assert done.returncode == 0, done.stderr
    assert len(clouds.machines()) == 1
    assert len(events(clouds, "unclear", "create_unclear")) == 1
    assert_all_answered(clouds, "unclear")
