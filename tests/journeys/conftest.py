"""A workshop for each journey; whatever a test leaves behind is ended, by id."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.workshop import Workshop, end_hard


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    for _ in range(3):
        for process in made.ours():
            end_hard(process)
        time.sleep(0.05)
    for started in made.started:
        started.wait(10)
