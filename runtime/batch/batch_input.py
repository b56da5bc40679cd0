"""The batch file as a whole: read once in a stream, every bad line reported. Called by `validate`, `plan` and input_index."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from runtime.batch.batch_lines import LineChecker, LineFacts, LineProblem, read_custom_id
from runtime.batch.input_lines import find_line_numbers, iterate_lines, open_input, read_line, refuse_other_formats
from runtime.batch.line_places import find_column
from schemas.errors import Problem, SpecError

_BUCKETS = 64
# Told of every good line: its ordinal (0, 1, ...), the offset of its first byte, its id's hash, its facts.
LineSink = Callable[[int, int, int, LineFacts], None]


class InputReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch file holds and what is wrong with it. `problems` are the first ones, problem_count is all of them,
    problem_counts how many there are of each code.

    lines: requests (blank lines left out); size: bytes read; end: offset behind the last request's line;
    body_bytes: the bodies alone; max_tokens_sum is over the lines that set a limit, max_tokens_unknown counts the others.
    """

    path: str
    model: str
    lines: int
    size: int
    end: int
    body_bytes: int
    max_tokens_sum: int
    max_tokens_unknown: int
    problem_count: int
    problems: tuple[Problem, ...] = ()
    problem_counts: Mapping[str, int] = {}

    def raise_if_bad(self) -> None:
        """Raise SpecError carrying the problems, if there are any."""
        if self.problem_count:
            count = f"{self.problem_count:,} problem" + ("s" if self.problem_count > 1 else "")
            raise SpecError(
                f"the input file has {count}; nothing was started",
                where=self.path,
                fix="Correct these lines and run it again.",
                problems=self.problems,
                omitted=self.problem_count - len(self.problems),
                problem_counts=self.problem_counts,
            )


def check_input(
    path: Path, *, endpoint: str, model: str, most_tokens: int = 0, line_limit: int = 0, max_problems: int = 100
) -> InputReport:
    """Read the whole file (or its first line_limit requests) and report; raises SpecError if it cannot be read.

    An empty `model` or `endpoint` takes the first line's and holds all others to it. most_tokens: no line may ask for a
    longer answer, 0 = any. Costs 16 bytes of memory a line.
    """
    checker = LineChecker(endpoint=endpoint, model=model, most_tokens=most_tokens)
    return _scan_file(path, checker, line_limit, max_problems, None)


def scan_input(
    path: Path,
    *,
    endpoint: str,
    model: str,
    line_limit: int = 0,
    max_problems: int = 100,
    sink: LineSink | None = None,
) -> InputReport:
    """check_input that also tells `sink` of each good line as it goes by."""
    return _scan_file(path, LineChecker(endpoint=endpoint, model=model), line_limit, max_problems, sink)


def _scan_file(
    path: Path, checker: LineChecker, line_limit: int, max_problems: int, sink: LineSink | None
) -> InputReport:
    scan = _Scan(path, checker, max_problems)
    with open_input(path) as file:
        try:
            refuse_other_formats(path, file)
            scan.read(file, line_limit, sink)
            scan.find_duplicates(file)
        except OSError as error:
            raise SpecError(f"cannot read the input: {error.strerror}", where=str(path)) from error
    return scan.report()


def hash_bytes(data: bytes | msgspec.Raw) -> int:
    """64 bits of SHA-256: the same on every machine and in every run, so it may be stored."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


class _Scan:
    """One pass over one file and what it has found so far."""

    def __init__(self, path: Path, checker: LineChecker, max_problems: int) -> None:
        self.path = path
        self.checker = checker
        self.max_problems = max_problems
        self.problems: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self.offsets, self.hashes = array("Q"), array("Q")
        self.lines = self.size = self.end = self.body_bytes = self.max_tokens_sum = self.max_tokens_unknown = 0

    def read(self, file: BinaryIO, line_limit: int, sink: LineSink | None) -> None:
        check = self.checker.check
        for number, start, end, line in iterate_lines(file):
            self.size = end
            if not line or line.isspace():
                continue
            facts = check(line)
            if isinstance(facts, LineFacts):
                self._keep(start, facts, sink)
            else:
                self._refuse(number, start, line, facts)
            self.lines += 1
            self.end = end
            if self.lines == line_limit:
                break
        if self.lines == 0:
            fix = "Write one request a line, as OpenAI's batch files have them."
            self._add(0, b"", LineProblem(code="empty_file", message="the file has no requests", fix=fix))

    def _keep(self, start: int, facts: LineFacts, sink: LineSink | None) -> None:
        id_hash = self._keep_id(start, facts.custom_id)
        self.body_bytes += len(memoryview(facts.body))
        if facts.max_tokens >= 0:
            self.max_tokens_sum += facts.max_tokens
        else:
            self.max_tokens_unknown += 1
        if sink is not None:
            sink(self.lines, start, id_hash, facts)

    def _keep_id(self, start: int, custom_id: str) -> int:
        id_hash = hash_bytes(custom_id.encode())
        self.offsets.append(start)
        self.hashes.append(id_hash)
        return id_hash

    def _refuse(self, number: int, start: int, line: bytes, problems: tuple[LineProblem, ...]) -> None:
        custom_id = read_custom_id(line)
        if custom_id:
            self._keep_id(start, custom_id)
        for problem in problems:
            self._add(number, line, problem)

    @property
    def problem_count(self) -> int:
        return self.counts.total()

    def _add(self, number: int, line: bytes, problem: LineProblem) -> None:
        self.counts[problem.code] += 1
        if len(self.problems) < self.max_problems:
            self.problems.append(
                Problem(
                    file=str(self.path),
                    line=number,
                    column=problem.column or find_column(line, problem.path),
                    message=problem.message,
                    code=problem.code,
                    path=problem.path,
                    fix=problem.fix,
                )
            )

    def find_duplicates(self, file: BinaryIO) -> None:
        """Report each later line whose custom_id an earlier one has; equal hashes are compared by reading both lines.

        Past max_problems the hash alone decides: only the count depends on it, and 64 bits do not collide by chance.
        """
        repeated = _repeated_values(self.hashes)
        if not repeated:
            return
        first: dict[int, int] = {}
        pairs: list[tuple[int, int]] = []
        for ordinal, value in enumerate(self.hashes):
            if value not in repeated:
                continue
            if value not in first:
                first[value] = ordinal
            elif len(pairs) < self.max_problems:
                pairs.append((first[value], ordinal))
            else:
                self.counts["duplicate_custom_id"] += 1
        self._report_duplicates(file, pairs)

    def _report_duplicates(self, file: BinaryIO, pairs: list[tuple[int, int]]) -> None:
        wanted = sorted({self.offsets[ordinal] for pair in pairs for ordinal in pair})
        numbers = find_line_numbers(file, wanted)
        for earlier, later in pairs:
            line = read_line(file, self.offsets[later])
            old, new = read_custom_id(read_line(file, self.offsets[earlier])), read_custom_id(line)
            if old == new:
                text = f"custom_id {new!r} is also that of line {numbers[self.offsets[earlier]]}"
                problem = LineProblem(
                    code="duplicate_custom_id", message=text, path="custom_id", fix="Make ids unique."
                )
                self._add(numbers[self.offsets[later]], line, problem)
        self.problems.sort(key=lambda problem: problem.line)

    def report(self) -> InputReport:
        return InputReport(
            path=str(self.path),
            model=self.checker.model,
            lines=self.lines,
            size=self.size,
            end=self.end,
            body_bytes=self.body_bytes,
            max_tokens_sum=self.max_tokens_sum,
            max_tokens_unknown=self.max_tokens_unknown,
            problem_count=self.problem_count,
            problems=tuple(self.problems),
            problem_counts=dict(self.counts),
        )


def _repeated_values(values: array[int]) -> set[int]:
    """Values that occur more than once. By buckets of the top bits: one set of everything would cost 60 bytes a line."""
    buckets = [array("Q") for _ in range(_BUCKETS)]
    for value in values:
        buckets[value >> 58].append(value)
    repeated: set[int] = set()
    for bucket in buckets:
        seen = set(bucket)
        if len(seen) != len(bucket):
            once: set[int] = set()
            for value in bucket:
                (repeated if value in once else once).add(value)
    return repeated
