"""Many problems as one list for a person: each once, sorted by place. Called wherever checks are put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.errors import Problem

# Something that is missing stands nowhere, so its problem shares its place with whatever is there.
_PLACELESS = frozenset({"missing_key"})


def merge_problems(*groups: Iterable[Problem]) -> tuple[Problem, ...]:
    """All problems by file and line; where two are about one place, that of the earlier group stays."""
    kept: dict[Problem, None] = {}
    taken: set[tuple[str, int, int]] = set()
    for group in groups:
        new = [problem for problem in group if problem.code in _PLACELESS or _place(problem) not in taken]
        kept.update(dict.fromkeys(new))
        taken.update(_place(problem) for problem in new if problem.line and problem.code not in _PLACELESS)
    return tuple(sorted(kept, key=_place))


def count_mistakes(what: str, problems: Sequence[Problem]) -> str:
    """`the job has 3 mistakes`."""
    return f"{what} has {len(problems)} mistake{'s' if len(problems) != 1 else ''}"


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.file, problem.line, problem.column
