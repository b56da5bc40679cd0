"""The error tree: one exit code a class that has its own, and messages that say where, what and what to do."""

from __future__ import annotations

import inspect

from schemas import errors
from schemas.errors import CloudError, LeaseholdError, Problem, SpecError


def list_classes() -> list[type[LeaseholdError]]:
    return [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, LeaseholdError)]


def test_exit_codes_are_unique_among_the_classes_that_own_one() -> None:
    owners = [each for each in list_classes() if "exit_code" in vars(each)]
    codes = [each.exit_code for each in owners]

    assert len(codes) == len(set(codes)) == 12


def test_every_class_is_drawn_in_the_tree_at_the_top_of_its_file() -> None:
    drawn = errors.__doc__ or ""

    assert [each.__name__ for each in list_classes() if each.__name__ not in drawn] == []


def test_a_message_says_where_what_and_what_to_do() -> None:
    error = LeaseholdError("the disk is full", where="/tmp/x", fix="Make room.")

    assert str(error) == "/tmp/x: the disk is full\n  Make room."


def test_a_spec_error_lists_its_problems_with_their_places() -> None:
    problem = Problem(file="job.yaml", line=3, column=7, message="no such key", code="unknown_key", fix="Remove it.")
    error = SpecError("the job has 1 problem", problems=[problem], omitted=2)

    assert str(error).splitlines() == [
        "the job has 1 problem",
        "  job.yaml:3:7: no such key [unknown_key]",
        "    Remove it.",
        "  ... and 2 more",
    ]


def test_many_problems_of_one_kind_are_told_by_the_first_three() -> None:
    lines = [Problem(file="in.jsonl", line=line, message="model is 'x'", code="model_mismatch") for line in range(1, 9)]
    error = SpecError("bad", problems=lines, omitted=92, problem_counts={"model_mismatch": 100})

    assert str(error).splitlines() == [
        "bad",
        *(f"  in.jsonl:{line}: model is 'x' [model_mismatch]" for line in (1, 2, 3)),
        "  ... and 97 more [model_mismatch]: lines 4, 5, 6, 7, 8, ...",
    ]
    assert len(error.problems) == 8, "whoever prints data still has them"


def test_a_problem_that_stands_in_no_file_begins_with_what_is_wrong() -> None:
    assert str(Problem(file="", message="there is no template `x`")) == "there is no template `x`"


def test_a_cloud_error_carries_operation_status_and_request_id_but_not_in_its_text() -> None:
    error = CloudError("refused", operation="launch", status=400, request_id="r-1", detail="no stock")

    assert (error.operation, error.status, error.request_id, error.detail) == ("launch", 400, "r-1", "no stock")
    assert str(error) == "refused"
