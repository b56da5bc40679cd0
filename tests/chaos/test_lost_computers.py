"""From S3 to S3 through the real engine, while one computer after the other is lost with everything that runs on it.

Only with --chaos, since it takes minutes; tests/journeys/test_s3.py has one computer, which sleeps and wakes up late.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import pick_engine_seeds
from tests.chaos.relay import Relay
from tests.runtime.object_service import ObjectService, serve_objects

pytestmark = [pytest.mark.chaos, pytest.mark.engine]


@pytest.fixture
def service() -> Iterator[ObjectService]:
    with serve_objects() as served:
        yield served


@pytest.mark.timeout(900)
def test_whichever_computers_are_lost_every_request_is_answered_once(
    tmp_path: Path, service: ObjectService, pytestconfig: pytest.Config
) -> None:
    if pytestconfig.getoption("--chaos", default=None) is None:
        pytest.skip("takes minutes: ./inv test --chaos 1 does it")
    relay = Relay(tmp_path, service, pick_engine_seeds(pytestconfig)[0], losses=10, megabytes=50)

    try:
        relay.play()
    finally:
        relay.close()

    print("\n".join(relay.told))
    assert relay.broken == [], "\n".join([*relay.broken, *relay.told])
