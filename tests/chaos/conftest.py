"""`--chaos N`: how many random kills through the real engine; the seeds are in the tests' names and in the report's header."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.workshop import Workshop, end_hard

DEFAULT_RUNS = 6
SHORT_OUTAGE_S, LONG_OUTAGE_S = 4.0, 120.0
# New seeds each time, but the same ones in all workers of one run.
_FIRST_SEED = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(10**6)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", type=int, help=f"random runs through the real engine (default: {DEFAULT_RUNS})")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine_seed" in metafunc.fixturenames:
        metafunc.parametrize("engine_seed", pick_engine_seeds(metafunc.config))
    if "rented_cloud" in metafunc.fixturenames:
        usual = [metafunc.function.usual_cloud]
        metafunc.parametrize("rented_cloud", ["runpod", "lambda"] if _is_long_look(metafunc.config) else usual)


def pick_engine_seeds(config: pytest.Config) -> list[int]:
    """The one that $LEASEHOLD_CHAOS_SEED names, else as many new ones as were asked for."""
    given = os.environ.get("LEASEHOLD_CHAOS_SEED")
    if given:
        return [int(given)]
    # Not known as an option when the whole suite is collected from its root.
    count = config.getoption("--chaos", default=None)
    return [_FIRST_SEED + number for number in range(DEFAULT_RUNS if count is None else count)]


def _is_long_look(config: pytest.Config) -> bool:
    return config.getoption("--chaos", default=None) is not None


@pytest.fixture
def outage_s(request: pytest.FixtureRequest) -> float:
    """How long a cloud is down, in real seconds: the whole two minutes where --chaos asks for a long look."""
    return LONG_OUTAGE_S if _is_long_look(request.config) else SHORT_OUTAGE_S


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """A computer of one's own; whatever a test leaves behind is ended, by id."""
    made = Workshop(tmp_path)
    yield made
    for _ in range(5):
        for process in made.ours():
            end_hard(process)
        time.sleep(0.05)
    for started in made.started:
        started.wait(10)
