"""Deaths under `pulumi up`, through the real engine: it is started again, nothing is made twice, and too many end the run."""

from __future__ import annotations

import pytest

from schemas.errors import CancelledError
from tests.chaos.directed import ONE, SLOW, expect_each_machine_made_once, find, kill, read_ids, wait_for_event
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.chaos, pytest.mark.engine, pytest.mark.timeout(150)]


@pytest.mark.parametrize("victim", ["pulumi", "provider", "program"])
def test_what_is_killed_under_an_up_in_mid_boot_is_started_again_and_the_run_is_whole(
    workshop: Workshop, victim: str
) -> None:
    run = workshop.start("run", str(workshop.write_job()), "--run", "boot", LEASEHOLD_LOCAL_FAULT="delay=2")
    wait_for_event(workshop, "boot", "machine_created")

    kill(workshop, victim)

    assert run.wait(60) == 0
    assert workshop.events("boot").count('"up_restarted"') == 1
    expect_each_machine_made_once(workshop, "boot", machines=2)
    assert read_ids(workshop, "boot") == sorted(f"id-{number}" for number in range(60))
    assert workshop.status("boot")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_a_pulumi_that_is_killed_three_times_ends_the_run_and_everything_is_given_back(workshop: Workshop) -> None:
    run = workshop.start("run", str(workshop.write_job(machines=ONE)), "--run", "cut", LEASEHOLD_LOCAL_FAULT="hang")
    for times in range(3):
        wait_for_event(workshop, "cut", "machine_created")
        workshop.wait_for("the next up", lambda: workshop.events("cut").count('"up_restarted"') == times)  # noqa: B023
        workshop.wait_for("pulumi", lambda: find(workshop, "pulumi"))
        kill(workshop, "pulumi")

    assert run.wait(60) == 4
    status = workshop.status("cut")
    assert (status["released"], status["message"]) == ("verified", "Pulumi itself was killed by signal 9")
    assert workshop.events("cut").count('"up_restarted"') == 2
    expect_each_machine_made_once(workshop, "cut", machines=1)
    workshop.wait_until_nothing_is_left()


def test_a_cancel_after_a_kill_starts_nothing_again(workshop: Workshop) -> None:
    run = workshop.start("run", str(workshop.write_job(machines=ONE)), "--run", "both", LEASEHOLD_LOCAL_FAULT="hang")
    wait_for_event(workshop, "both", "machine_created")

    (workshop.run_dir("both") / "cancel").write_text("cancelled")
    kill(workshop, "pulumi")

    assert run.wait(60) == CancelledError.exit_code
    assert '"up_restarted"' not in workshop.events("both")
    assert workshop.status("both")["released"] == "verified"
    workshop.wait_until_nothing_is_left()


def test_a_command_plugin_killed_as_it_starts_the_dispatcher_leaves_none(workshop: Workshop) -> None:
    run = workshop.start("run", str(workshop.write_job(**SLOW)), "--run", "plug", LEASEHOLD_LOCAL_FAULT="delay=3")
    workshop.wait_for("the manifest", (workshop.run_dir("plug") / "manifest.json").exists)

    kill(workshop, "plugin")

    assert run.wait(60) == 0
    assert read_ids(workshop, "plug") == sorted(f"id-{number}" for number in range(300))
    assert workshop.status("plug")["released"] == "verified"
    workshop.wait_until_nothing_is_left()
