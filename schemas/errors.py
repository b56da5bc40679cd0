"""Everything that can go wrong, as one tree; every other module raises from here, tasks turn it into text and an exit code.

LeaseholdError                      1   unexpected
├── SpecError                       2   the job, the template, the input or an argument is wrong (carries every problem)
├── CredentialError                 3   a key is missing or was refused
├── CloudError                      4   a cloud or a machine failed (operation, status, request id)
│   ├── RateLimited                     the cloud asked us to wait longer than we may
│   ├── RequestRefused                  the cloud says that the request itself is wrong
│   ├── RetiredApi                      this version of the API is gone
│   ├── UnclearOutcome                  a create was sent and its answer is lost: it may or may not exist
│   └── MachineFailed                   a machine did not become ready, or died
├── LimitError                      5   refused by a limit of the job or a policy
│   └── PolicyError                     refused by a rule of the policy
├── EngineError                     6   the engine never became healthy
├── CancelledError                  7   cancelled by the user
├── ExpiredError                    8   time or money used up
├── RequestsFailed                 10   finished, some requests failed
├── NoCapacity                     11   no offer left to try
├── ReleaseError                   12   release not verified (wins over all others)
└── Interrupted                   130   interrupted, and released
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec

# Problems of one kind that are shown one by one; the rest of their kind is counted, with the lines of so many.
_SHOWN = 3
_LISTED = 10


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong in a file a user wrote; line and column count from 1, 0 means unknown."""

    file: str
    message: str
    line: int = 0
    column: int = 0
    code: str = ""
    path: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])
        code = f" [{self.code}]" if self.code else ""
        fix = f"\n    {self.fix}" if self.fix else ""
        return f"{place}: {self.message}{code}{fix}" if place else f"{self.message}{code}{fix}"


def list_by_kind(problems: Sequence[Problem], counts: Mapping[str, int]) -> Iterator[str]:
    """Problems as text; of each kind in `counts` the first three, how many more there are, and in which lines."""
    yield from (str(problem) for problem in problems if problem.code not in counts)
    for code, count in counts.items():
        same = [problem for problem in problems if problem.code == code]
        yield from map(str, same[:_SHOWN])
        rest = count - len(same[:_SHOWN])
        if rest:
            numbers = ", ".join(f"{problem.line}" for problem in same[_SHOWN : _SHOWN + _LISTED])
            where = f": lines {numbers}{', ...' if rest > _LISTED else ''}" if numbers else ""
            yield f"... and {rest:,} more [{code}]{where}"


class LeaseholdError(Exception):
    """What happened, where, and what to do next; `exit_code` is what the process ends with."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  {self.fix}" if self.fix else head


class SpecError(LeaseholdError):
    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        fix: str = "",
        problems: Sequence[Problem] = (),
        omitted: int = 0,
        problem_counts: Mapping[str, int] = {},
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.problems = tuple(problems)
        self.omitted = omitted
        self.problem_counts = problem_counts

    def __str__(self) -> str:
        """problem_counts, the number of problems of each code, lets many of one kind be told by the first."""
        shown = list_by_kind(self.problems, self.problem_counts)
        lines = [super().__str__(), *(f"  {line}" for line in shown)]
        if self.omitted and not self.problem_counts:
            lines.append(f"  ... and {self.omitted:,} more")
        return "\n".join(lines)


class CredentialError(LeaseholdError):
    exit_code = 3


class CloudError(LeaseholdError):
    """A cloud's refusal or failure; `status` is the HTTP status or 0, `detail` the cloud's own words."""

    exit_code = 4

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        fix: str = "",
        operation: str = "",
        status: int = 0,
        request_id: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.operation = operation
        self.status = status
        self.request_id = request_id
        self.detail = detail


class RateLimited(CloudError):
    """`retry_after_s` is how long the cloud asked us to wait, in seconds."""

    retry_after_s: float = 0.0


class RequestRefused(CloudError):
    pass


class RetiredApi(CloudError):
    pass


class UnclearOutcome(CloudError):
    pass


class MachineFailed(CloudError):
    pass


class LimitError(LeaseholdError):
    exit_code = 5


class PolicyError(LimitError):
    """`rule` is the first rule that was broken, by its name in the policy's file."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", rule: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.rule = rule


class EngineError(LeaseholdError):
    exit_code = 6


class CancelledError(LeaseholdError):
    exit_code = 7


class ExpiredError(LeaseholdError):
    exit_code = 8


class RequestsFailed(LeaseholdError):
    exit_code = 10


class NoCapacity(LeaseholdError):
    exit_code = 11


class ReleaseError(LeaseholdError):
    exit_code = 12


class Interrupted(LeaseholdError):
    exit_code = 130
