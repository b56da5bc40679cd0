"""A short flag means the same in every task, and only a few flags have one."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection

import tasks as task_module
from toolchain.short_flags import SHORT_FLAGS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"


def list_short_flags() -> dict[str, dict[str, str]]:
    """By task: each short flag with the long one that it stands for."""
    found = {}
    for context in Collection.from_module(task_module).to_contexts():
        arguments = {argument.name: argument for argument in context.args.values()}
        found[str(context.name)] = {
            name: next(each for each in argument.names if len(each) > 1)
            for argument in arguments.values()
            for name in argument.names
            if len(name) == 1
        }
    return found


def test_every_short_flag_stands_for_the_same_flag_everywhere() -> None:
    meanings = {pair for flags in list_short_flags().values() for pair in flags.items()}

    assert meanings == {(short, name) for name, short in SHORT_FLAGS.items()}


def test_a_flag_that_has_a_short_form_has_it_in_every_task() -> None:
    for context in Collection.from_module(task_module).to_contexts():
        for name, short in SHORT_FLAGS.items():
            if f"--{name}" in context.flags:
                assert f"-{short}" in context.flags, context.name


def test_the_short_flags_are_documented() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert [name for name, short in SHORT_FLAGS.items() if f"`-{short}` for `--{name}`" not in text] == []
