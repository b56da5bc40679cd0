"""What an engine cannot honour of a template, with the field it is about. Made by the launches, told by launch and validate."""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """path: the field within the spec, as in `engine_args.port`."""

    path: str
    message: str
    fix: str = "Remove it, or take another engine."

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"
