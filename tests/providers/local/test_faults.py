"""Which fault befalls which machine."""

from __future__ import annotations

import pytest

from providers.local.faults import Fault, find_fault
from schemas.errors import SpecError

SECOND = "lh-abcdefghijkl-1x2-zzzzzz"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", Fault()),
        ("exit", Fault(kind="exit")),
        ("delay=2.5", Fault(kind="delay", seconds=2.5)),
        ("exit@1", Fault(kind="exit")),
        ("exit@1x2", Fault(kind="exit")),
        ("exit@0", Fault()),
        ("exit@1x0", Fault()),
        ("exit@0,hang@1", Fault(kind="hang")),
    ],
)
def test_the_first_fault_that_names_the_machine_is_taken(text: str, fault: Fault) -> None:
    assert find_fault(text, SECOND) == fault


@pytest.mark.parametrize("text", ["explode", "exit@", "delay=x", "exit@one"])
def test_a_fault_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="no such fault"):
        find_fault(text, SECOND)


def test_a_machine_with_a_foreign_name_has_only_faults_for_all() -> None:
    assert find_fault("exit@0,hang", "something-else") == Fault(kind="hang")
