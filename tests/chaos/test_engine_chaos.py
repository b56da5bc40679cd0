"""kill -9 at a random moment through the real engine, local cloud and emulators: at the end no machine is left, no process,
and every request has one answer. Again with LEASEHOLD_CHAOS_SEED=<the number in the test's name>."""

from __future__ import annotations

import dataclasses

import pytest

from tests.chaos.engine_run import EngineRun
from tests.chaos.scenario import draw_scenario
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.chaos, pytest.mark.engine, pytest.mark.timeout(240)]


def test_whoever_is_killed_nothing_is_left(workshop: Workshop, engine_seed: int) -> None:
    scenario = draw_scenario(engine_seed)
    run = EngineRun(workshop, scenario)

    run.play()

    print("\n".join([str(dataclasses.asdict(scenario)), *run.told]))
    assert run.broken == [], "\n".join([*run.broken, str(scenario), *run.told])
