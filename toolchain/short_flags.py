"""The few flags that have a short form, the same in every task. tasks.py makes its tasks of this kind.

invoke would give every flag the first letter that is free, so that -o meant one thing here and another there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from invoke.tasks import Task

SHORT_FLAGS: Mapping[str, str] = {"json": "j", "output": "o", "yes": "y"}


class ShortFlagTask(Task[Any]):
    """A task whose flags have the short forms of SHORT_FLAGS and no other ones."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "auto_shortflags": False})

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        options = super().arg_opts(name, default, taken_names)
        if name in SHORT_FLAGS:
            options["names"] = [*options["names"], SHORT_FLAGS[name]]
        return options
