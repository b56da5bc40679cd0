"""The table of positionals and the tasks of tasks.py say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.loader import FilesystemLoader

from toolchain.positionals import POSITIONALS

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tasks() -> Collection:
    module, _ = FilesystemLoader(start=str(_ROOT)).load("tasks")
    return Collection.from_module(module)


def test_every_task_is_in_the_table(tasks):
    assert set(tasks.task_names) <= set(POSITIONALS)


def test_every_positional_is_a_parameter_of_its_task_that_may_be_left_out_or_repeated_as_the_table_says(tasks):
    contexts = {context.name: context for context in tasks.to_contexts()}
    for name in tasks.task_names:
        for spec in POSITIONALS[name]:
            argument = contexts[name].flags[f"--{spec.rstrip('?+*')}"]
            assert (argument.kind is list) == spec.endswith(("+", "*")), (name, spec)
            assert spec.endswith("?") or argument.kind is list or argument.default is None, (name, spec)
