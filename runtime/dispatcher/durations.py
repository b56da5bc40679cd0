"""Counts how long every answer took, for progress.json and stats.jsonl. Fed by the sender, told by the reporter."""

from __future__ import annotations

from schemas.durations import STEPS, Durations, find_step


class DurationCounts:
    """A histogram with 3 % wide steps, which goes on from what an earlier dispatcher has told."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._steps = [0] * STEPS
        self._told = list(self._steps)

    def add(self, duration_s: float) -> None:
        self._steps[find_step(duration_s)] += 1
        if duration_s > self._longest_s:
            self._longest_s = duration_s

    def continue_from(self, old: Durations) -> None:
        """Begin with these; they are not news."""
        self._longest_s = old.longest_s
        for step, answers in old.steps:
            self._steps[min(max(step, 0), STEPS - 1)] += answers
        self._told = list(self._steps)

    def make_record(self) -> Durations:
        return Durations(
            answers=sum(self._steps),
            longest_s=round(self._longest_s, 4),
            steps=tuple((step, answers) for step, answers in enumerate(self._steps) if answers),
        )

    def take_news(self) -> tuple[tuple[int, int], ...]:
        """Steps and answers since the last call."""
        told, self._told = self._told, list(self._steps)
        pairs = enumerate(zip(self._steps, told, strict=True))
        return tuple((step, now - before) for step, (now, before) in pairs if now > before)
