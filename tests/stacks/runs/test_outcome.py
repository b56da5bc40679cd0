"""How a run ended: the states and exit codes that the README and the design promise."""

from __future__ import annotations

import pytest

from schemas.errors import (
    CancelledError,
    CloudError,
    CredentialError,
    EngineError,
    ExpiredError,
    LeaseholdError,
    LimitError,
    MachineFailed,
    NoCapacity,
    SpecError,
)
from schemas.failure import Failure
from schemas.status import FINAL_STATES, Progress, StopReason
from stacks.runs.outcome import Outcome, choose_exit_code, judge_error, judge_failures, judge_progress, judge_stop
from tests.stacks.run_files import make_progress


def make_failure(error: LeaseholdError, index: int = 0) -> Failure:
    kind = type(error).__name__
    return Failure(time="", step="machine", index=index, kind=kind, exit_code=error.exit_code, message=error.what)


ENDS = [
    ("all answered", make_progress("finished", total=10, completed=10), "completed", 0),
    ("some failed for good", make_progress("finished", total=10, completed=9, failed=1), "completed", 10),
    ("all failed", make_progress("finished", total=10, completed=0, failed=10), "failed", 10),
    ("nothing to do", make_progress("finished", total=0, completed=0), "completed", 0),
    ("cancelled", make_progress("stopped", stop_reason="batch_cancelled"), "cancelled", 7),
    ("out of time", make_progress("stopped", stop_reason="batch_expired"), "expired", 8),
    ("out of money", make_progress("stopped", stop_reason="budget_exceeded"), "expired", 8),
    ("the dispatcher cannot go on", make_progress("failed", message="disk full"), "failed", 10),
]


@pytest.mark.parametrize(("progress", "state", "code"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_the_dispatchers_last_word_is_a_state_and_an_exit_code(progress: Progress, state: str, code: int) -> None:
    outcome = judge_progress(progress)

    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == (state, code)
    assert outcome.state in FINAL_STATES


@pytest.mark.parametrize("state", ["waiting", "running", "draining", "stopped"])
def test_while_the_dispatcher_works_there_is_no_outcome(state: str) -> None:
    assert judge_progress(make_progress(state)) is None


def test_the_sentence_counts_what_was_answered_and_what_failed() -> None:
    outcome = judge_progress(make_progress("finished", total=1200, completed=1100, failed=100))

    assert outcome is not None
    assert outcome.message == "1,100 of 1,200 requests answered, 100 failed"


def test_a_failed_dispatchers_own_words_are_kept() -> None:
    outcome = judge_progress(make_progress("failed", message="the disk is full"))

    assert outcome is not None
    assert outcome.message == "the disk is full"


STOPS: list[tuple[StopReason, bool, str, int]] = [
    ("batch_cancelled", False, "cancelled", 7),
    ("batch_cancelled", True, "cancelled", 130),
    ("batch_expired", False, "expired", 8),
    ("batch_expired", True, "expired", 8),
    ("budget_exceeded", False, "expired", 8),
]


@pytest.mark.parametrize(("reason", "interrupted", "state", "code"), STOPS)
def test_a_stop_says_why_and_what_is_kept(reason: StopReason, interrupted: bool, state: str, code: int) -> None:
    outcome = judge_stop(reason, make_progress(total=10, completed=4), interrupted=interrupted)

    assert (outcome.state, outcome.exit_code) == (state, code)
    assert outcome.message.endswith("; 4 of 10 answers are kept")


def test_a_stop_before_the_first_request_keeps_nothing_and_claims_nothing() -> None:
    assert judge_stop("batch_cancelled", None, interrupted=False).message == "stopped by the user"


CAPACITY, BROKEN = make_failure(NoCapacity("sold out")), make_failure(MachineFailed("it died"))
REVOKED = make_failure(CancelledError("revoked"))
FAILURES = [
    ("no capacity anywhere", [CAPACITY, CAPACITY], [], "resource_failed", 11, "sold out"),
    ("a machine failed", [BROKEN], [], "resource_failed", 4, "it died"),
    ("one of each", [BROKEN, CAPACITY], [], "resource_failed", 4, "sold out"),
    ("the key was refused", [make_failure(CredentialError("no key"))], [], "resource_failed", 3, "no key"),
    ("the engine did not start", [CAPACITY], ["bad flag", "worse flag"], "submit_failed", 6, "worse flag"),
    ("what a cancel ended says nothing", [BROKEN, REVOKED], [], "resource_failed", 4, "it died"),
]


@pytest.mark.parametrize(
    ("failures", "engines", "state", "code", "message"), [each[1:] for each in FAILURES], ids=[e[0] for e in FAILURES]
)
def test_too_few_machines_are_judged_by_what_says_most(
    failures: list[Failure], engines: list[str], state: str, code: int, message: str
) -> None:
    assert judge_failures(failures, engines, []) == Outcome(state=state, exit_code=code, message=message)  # type: ignore[arg-type]


def test_without_failures_of_ours_pulumis_words_are_told() -> None:
    assert judge_failures([], [], ["first", "last"]).message == "last"
    assert "nothing says why" in judge_failures([REVOKED], [], []).message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError("a"), 2),
        (CredentialError("a"), 3),
        (CloudError("a"), 4),
        (LimitError("a"), 5),
        (EngineError("a"), 6),
        (ExpiredError("a"), 8),
        (ZeroDivisionError(), 1),
    ],
)
def test_an_error_of_the_life_cycle_keeps_its_exit_code(error: Exception, code: int) -> None:
    outcome = judge_error(error)

    assert (outcome.state, outcome.exit_code) == ("failed", code)
    assert outcome.message


@pytest.mark.parametrize("code", [0, 4, 7, 10, 11, 130])
def test_an_unproven_release_wins_over_every_other_exit_code(code: int) -> None:
    outcome = Outcome(state="completed", exit_code=code, message="")

    assert choose_exit_code(outcome, released=False) == 12
    assert choose_exit_code(outcome, released=True) == code
