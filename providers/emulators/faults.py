"""The state of the fault knobs of one emulator: turned at start or at run time, for the next N uses or until turned back."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from providers.emulators.knobs import Knob


class UnknownKnob(ValueError):
    """A knob that this emulator does not have, or a value of the wrong kind."""


class Turn(msgspec.Struct, kw_only=True):
    """One setting of a knob. left: uses that remain, None without end. match: a regular expression for the subject."""

    value: Any
    left: int | None = None
    match: str = ""


class Faults:
    """Subjects are machine names for knobs about machines, and `METHOD /path` for knobs about requests."""

    def __init__(self, knobs: Iterable[Knob], *, seed: int = 0) -> None:
        self._knobs = {knob.name: knob for knob in knobs}
        self._turns: dict[str, list[Turn]] = {}
        self._random = random.Random(seed)

    def set(self, name: str, value: Any = True, *, count: int | None = None, match: str = "") -> None:
        """Turn a knob; None or False turns it back. A turn with another match stands beside this one."""
        knob = self._find(name)
        _check_kind(knob, value)
        re.compile(match)
        turns = [turn for turn in self._turns.get(name, []) if turn.match != match]
        if not (value is None or (value is False and knob.default is not True)):
            turns.append(Turn(value=value, left=count, match=match))
        self._turns[name] = turns

    def knows(self, name: str) -> bool:
        return name in self._knobs

    def clear(self) -> None:
        self._turns.clear()

    def take(self, name: str, subject: str = "") -> Any:
        """The knob's value for this subject; uses up one of its remaining uses."""
        turn = self._match(name, subject)
        if turn is None:
            return self._find(name).default
        if turn.left is not None:
            turn.left -= 1
            if turn.left <= 0:
                self._turns[name].remove(turn)
        return turn.value

    def peek(self, name: str, subject: str = "") -> Any:
        """The knob's value for this subject, without using it up."""
        turn = self._match(name, subject)
        return self._find(name).default if turn is None else turn.value

    def _match(self, name: str, subject: str) -> Turn | None:
        self._find(name)
        turns = self._turns.get(name, [])
        return next((turn for turn in turns if not turn.match or re.search(turn.match, subject)), None)

    def draw_s(self, name: str, subject: str = "") -> float:
        """A value of a range knob, in seconds."""
        value = self.take(name, subject)
        if isinstance(value, list):
            return self._random.uniform(float(value[0]), float(value[1]))
        return float(value)

    def describe(self) -> list[dict[str, Any]]:
        """All knobs with what they are set to, for the admin route."""
        return [
            {
                "name": knob.name,
                "kind": knob.kind,
                "about": knob.about,
                "default": knob.default,
                "turns": [msgspec.to_builtins(turn) for turn in self._turns.get(knob.name, [])],
            }
            for knob in self._knobs.values()
        ]

    def _find(self, name: str) -> Knob:
        knob = self._knobs.get(name)
        if knob is None:
            raise UnknownKnob(f"no knob {name!r}; there are: {', '.join(sorted(self._knobs))}")
        return knob


def _check_kind(knob: Knob, value: Any) -> None:
    """Refuse a value that the knob could never use, so that a mistyped test fails at once."""
    if value is None or value is False:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_pair = isinstance(value, list) and len(value) == 2 and all(isinstance(part, int | float) for part in value)
    fits = {
        "flag": value is True,
        "number": is_number,
        "range": is_number or is_pair,
        "text": isinstance(value, str),
        "json": isinstance(value, dict),
    }
    if not fits[knob.kind]:
        raise UnknownKnob(f"knob {knob.name!r} takes a {knob.kind}, not {value!r}")
