from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.batch.input_index import open_input
from runtime.batch.results import ResultWriter
from runtime.dispatcher.dispatch_lock import hold_dispatch_lock
from runtime.resuming.adoption import Adoption, EarlierRun, adopt_results
from schemas.errors import SpecError
from tests.runtime.conftest import ENDPOINT, Bench, Engines, make_line

ANSWER = b'{"big":1e400,"usage":{"prompt_tokens":3,"completion_tokens":2}}'


class Desk:
    """An earlier run's folder with its input, and the new run's."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new, self.input = folder / "old", folder / "new", folder / "in.jsonl"
        self.writer = ResultWriter("first")
        self.old.mkdir()
        self.new.mkdir()

    def write_input(self, lines: Sequence[bytes]) -> None:
        self.input.write_bytes(b"\n".join(lines) + b"\n")

    def index_old(self, lines: Sequence[bytes]) -> None:
        self.write_input(lines)
        open_input(self.input, self.old / "input.index", endpoint=ENDPOINT, model="tiny").close()

    def answer(self, line: int, custom_id: str) -> bytes:
        quoted = json.dumps(custom_id).encode()
        return self.writer.make_answer(line, quoted, status=200, request_id=f"q{line}", body=ANSWER)

    def refuse(self, line: int, custom_id: str) -> bytes:
        quoted = json.dumps(custom_id).encode()
        return self.writer.make_refusal(line, quoted, status=400, request_id="q", body=b'{"error":"too long"}')

    def fail(self, line: int, custom_id: str, code: str) -> bytes:
        return self.writer.make_failure(line, json.dumps(custom_id).encode(), code=code, message="m")

    def leave(self, name: str, *lines: bytes) -> None:
        (self.old / name).write_bytes(b"".join(lines))

    def adopt(self, *, retry: bool = False, **changes: Any) -> Adoption:
        options: dict[str, Any] = {"run": "second", "input_path": self.input, "endpoint": ENDPOINT, "model": "tiny"}
        earlier = EarlierRun(run="first", folder=self.old)
        return adopt_results(earlier, self.new, with_failures=not retry, **(options | changes))

    def taken(self, name: str = "output.jsonl.part") -> list[str]:
        return [json.loads(line)["custom_id"] for line in (self.new / name).read_bytes().splitlines()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


IDS = ["a", "b", "c", "d", "e"]
LINES = [make_line(custom_id) for custom_id in IDS]


def leave_mixed_results(desk: Desk) -> None:
    """a and c answered, b refused, d failed for good, e never run."""
    desk.index_old(LINES)
    desk.leave("output.jsonl", desk.answer(2, "c"), desk.answer(0, "a"))
    desk.leave(
        "error.jsonl", desk.refuse(1, "b"), desk.fail(3, "d", "connection_error"), desk.fail(4, "e", "batch_cancelled")
    )


def test_a_resume_takes_answers_and_final_failures(desk: Desk) -> None:
    leave_mixed_results(desk)

    adoption = desk.adopt()

    assert (desk.taken(), desk.taken("error.jsonl.part")) == (["c", "a"], ["b", "d"])
    assert (adoption.lines, adoption.answers, adoption.failures, adoption.left) == (5, 2, 2, 1)
    assert (adoption.usage.input_tokens, adoption.usage.output_tokens) == (6, 4)
    assert (adoption.left_bytes, adoption.left_max_tokens_sum, adoption.left_max_tokens_unknown) == (
        len(LINES[4]) - LINES[4].index(b'{"model"') - 1,
        8,
        0,
    )


def test_a_retry_takes_only_answers(desk: Desk) -> None:
    leave_mixed_results(desk)

    adoption = desk.adopt(retry=True)

    assert (desk.taken(), desk.taken("error.jsonl.part")) == (["c", "a"], [])
    assert (adoption.failures, adoption.left, adoption.lost) == (0, 3, 0)


@pytest.mark.parametrize("code", ["batch_cancelled", "batch_expired", "budget_exceeded"])
def test_requests_that_never_ran_are_left(desk: Desk, code: str) -> None:
    desk.index_old(LINES)
    desk.leave("error.jsonl", *(desk.fail(line, custom_id, code) for line, custom_id in enumerate(IDS)))

    assert desk.adopt().left == 5


def test_a_line_is_the_old_one_but_for_its_id(desk: Desk) -> None:
    leave_mixed_results(desk)

    desk.adopt()

    taken = (desk.new / "output.jsonl.part").read_bytes().splitlines(keepends=True)
    assert taken[0] == desk.answer(2, "c").replace(b"batch_req_first00000002", b"batch_req_second00000002")
    assert ResultWriter("second").read(taken[0]) == desk.writer.read(desk.answer(2, "c"))


def test_the_old_folder_stays_as_it_is(desk: Desk) -> None:
    leave_mixed_results(desk)
    before = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in desk.old.iterdir()}

    desk.adopt()

    assert {path.name: hashlib.sha256(path.read_bytes()).digest() for path in desk.old.iterdir()} == before


def test_requests_are_paired_by_id_in_any_order(desk: Desk) -> None:
    leave_mixed_results(desk)
    desk.write_input([make_line("new"), *LINES[::-1]])

    adoption = desk.adopt()

    lines = (desk.new / "output.jsonl.part").read_bytes().splitlines(keepends=True)
    placed = {json.loads(line)["custom_id"]: ResultWriter("second").read(line) for line in lines}
    assert {custom_id: result.line for custom_id, result in placed.items() if result} == {"c": 3, "a": 5}
    assert (adoption.lines, adoption.left, adoption.vanished) == (6, 2, 0)


def test_requests_that_the_input_no_longer_has_are_left_behind_and_counted(desk: Desk) -> None:
    leave_mixed_results(desk)
    desk.write_input([LINES[2], LINES[4]])

    adoption = desk.adopt()

    assert (desk.taken(), adoption.left, adoption.vanished) == (["c"], 1, 3)


def test_a_limit_takes_only_what_lies_within_it(desk: Desk) -> None:
    leave_mixed_results(desk)

    adoption = desk.adopt(line_limit=2)

    assert (desk.taken(), desk.taken("error.jsonl.part"), adoption.left) == (["a"], ["b"], 0)


def test_a_body_that_changed_under_its_id_is_refused_with_its_line(desk: Desk) -> None:
    leave_mixed_results(desk)
    changed = [line.replace(b"hello", b"jello") for line in LINES]
    desk.write_input([LINES[0], b"", changed[1], changed[2], LINES[3], changed[4]])

    with pytest.raises(SpecError) as caught:
        desk.adopt()

    problems = caught.value.problems
    assert [(problem.line, problem.code) for problem in problems] == [(3, "body_changed"), (4, "body_changed")]
    assert "custom_id 'b' has another body than in run first" in str(caught.value)


def test_the_first_of_many_changed_bodies_are_named(desk: Desk) -> None:
    ids = [f"r{number}" for number in range(50)]
    desk.index_old([make_line(custom_id) for custom_id in ids])
    desk.leave("output.jsonl", *(desk.answer(line, custom_id) for line, custom_id in reversed(list(enumerate(ids)))))
    desk.write_input([make_line(custom_id, max_tokens=9) for custom_id in ids])

    with pytest.raises(SpecError) as caught:
        desk.adopt()

    assert [problem.line for problem in caught.value.problems] == list(range(1, 11))
    assert caught.value.omitted == 40


def test_a_failed_request_may_be_corrected_for_a_retry(desk: Desk) -> None:
    leave_mixed_results(desk)
    desk.write_input([LINES[0], LINES[1].replace(b"hello", b"short"), *LINES[2:]])

    assert desk.adopt(retry=True).left == 3


def test_results_of_a_killed_run_are_read_with_torn_tails_and_damage(desk: Desk) -> None:
    desk.index_old(LINES)
    desk.leave(
        "output.jsonl.part",
        desk.answer(0, "a"),
        b"\0" * 64 + b"\n",
        b'{"id":"somebody else"}\n',
        ResultWriter("third").make_answer(1, b'"b"', status=200, request_id="q", body=b"{}"),
        desk.answer(2, "c"),
        desk.answer(3, "d")[:-1],
    )
    desk.leave("error.jsonl.part", desk.refuse(1, "b"), desk.refuse(4, "e")[:40])

    adoption = desk.adopt()

    assert (desk.taken(), desk.taken("error.jsonl.part")) == (["a", "c"], ["b"])
    assert adoption.left == 2


def test_a_request_with_two_results_is_taken_once_and_keeps_its_answer(desk: Desk) -> None:
    desk.index_old(LINES)
    desk.leave("output.jsonl", desk.answer(0, "a"), desk.answer(0, "a"))
    desk.leave("error.jsonl", desk.refuse(0, "a"))

    adoption = desk.adopt()

    assert (desk.taken(), desk.taken("error.jsonl.part"), adoption.left) == (["a"], [], 4)


def test_a_result_whose_id_is_not_that_of_its_request_is_not_taken(desk: Desk) -> None:
    desk.index_old(LINES)
    desk.leave("output.jsonl", desk.answer(0, "b"), desk.answer(9, "a"), desk.answer(1, "b"))

    assert (desk.adopt().left, desk.taken()) == (4, ["b"])


def test_the_same_id_may_be_escaped_in_another_way(desk: Desk) -> None:
    desk.index_old([make_line("naïve")])
    desk.leave("output.jsonl", desk.answer(0, "naïve"))
    desk.write_input([make_line("naïve").replace(b"na\\u00efve", "naïve".encode())])

    assert desk.adopt().left == 0


def test_another_endpoint_is_refused(desk: Desk) -> None:
    leave_mixed_results(desk)
    prompts = [line.replace(b'"max_tokens"', b'"prompt": "a", "max_tokens"') for line in LINES]
    desk.write_input([line.replace(ENDPOINT.encode(), b"/v1/completions") for line in prompts])

    with pytest.raises(SpecError, match="this job sends to /v1/completions"):
        desk.adopt(endpoint="/v1/completions")


def test_bad_input_is_refused_with_every_problem(desk: Desk) -> None:
    leave_mixed_results(desk)
    desk.write_input([*LINES, b"{", LINES[0]])

    with pytest.raises(SpecError) as caught:
        desk.adopt()

    assert [problem.code for problem in caught.value.problems] == ["invalid_json_line", "duplicate_custom_id"]


def test_a_run_that_never_began_leaves_everything(desk: Desk) -> None:
    desk.write_input(LINES)

    assert desk.adopt().left == 5


def test_results_without_an_index_are_refused(desk: Desk) -> None:
    leave_mixed_results(desk)
    (desk.old / "input.index").unlink()

    with pytest.raises(SpecError, match="nothing tells which requests they answer"):
        desk.adopt()


def test_a_torn_index_is_refused(desk: Desk) -> None:
    leave_mixed_results(desk)
    whole = (desk.old / "input.index").read_bytes()
    (desk.old / "input.index").write_bytes(whole[:-10])

    with pytest.raises(SpecError, match="is torn"):
        desk.adopt()


def test_a_run_at_work_is_refused(desk: Desk) -> None:
    leave_mixed_results(desk)

    with hold_dispatch_lock(desk.old), pytest.raises(SpecError, match="still at work"):
        desk.adopt()


def test_many_requests_in_another_order_find_their_results(desk: Desk) -> None:
    ids = [f"r{number}" for number in range(3000)]
    desk.index_old([make_line(custom_id) for custom_id in ids])
    desk.leave("output.jsonl", *(desk.answer(line, ids[line]) for line in range(0, 3000, 3)))
    desk.write_input([make_line(custom_id) for custom_id in sorted(ids)])

    adoption = desk.adopt()

    assert (adoption.answers, adoption.left, adoption.vanished) == (1000, 2000, 0)


@pytest.mark.wire
def test_a_dispatcher_goes_on_from_what_was_taken_over(bench: Bench, engines: Engines) -> None:
    engine = engines.add()
    bench.write_requests(40, lambda number: ["400"] if number % 10 == 0 else ())
    bench.run(engine.base_url)
    answered = dict(engine.answered)
    earlier, bench.output = bench.output, bench.folder / "again"
    bench.output.mkdir()
    adopt_results(
        EarlierRun(run="run-1", folder=earlier), bench.output, run="run-2", input_path=bench.input,
        endpoint=ENDPOINT, model="tiny", with_failures=False,
    )  # fmt: skip
    for name in ("output.jsonl.part", "error.jsonl.part"):
        with (bench.output / name).open("ab") as file:
            file.write(b'{"id":"batch_req_run-2')

    results = bench.run(engine.base_url, run="run-2")

    assert (len(results.output), len(results.error)) == (36, 4)
    assert engine.requests == 44
    assert sum(engine.answered.values()) - sum(answered.values()) <= 4
    assert results.progress.request_counts.total == 40
    assert all(line["id"].startswith("batch_req_run-2") for line in results.output.values())
