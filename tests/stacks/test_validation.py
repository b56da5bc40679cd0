"""`validate`: every problem of job and input at once, as words or as data, with an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.errors import SpecError
from stacks.validation import report_problems

JOB = """\
version: 1
name: tickets
input: input.jsonl
endpoint: /v1/chat/completions
template: tiny-chat@1.0.0
completion_window: 1h
machines:
  candidates:
    - {cloud: local}
limits: {max_hours: 1}
"""


def make_line(custom_id: str, model: str = "tiny-chat") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def write(folder: Path, *lines: str, job: str = JOB, name: str = "job.yaml") -> Path:
    (folder / "input.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / name).write_text(job)
    return folder / name


def report(capsys: pytest.CaptureFixture[str], *jobs: Path) -> tuple[int, list[dict[str, object]]]:
    code = report_problems(jobs, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def test_a_good_job_is_ok_and_its_requests_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (found,) = report(capsys, write(tmp_path, make_line("a"), make_line("b")))

    assert code == 0
    assert (found["ok"], found["requests"], found["problems"]) == (True, 2, [])


def test_every_bad_line_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path, make_line("a"), "{", make_line("a"), make_line("c", model="other"))

    code, (found,) = report(capsys, job)

    problems = found["problems"]
    assert code == 2
    assert isinstance(problems, list)
    assert sorted(each["line"] for each in problems) == [2, 3, 4]
    assert all(each["file"].endswith("input.jsonl") for each in problems)


def test_every_mistake_of_the_job_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path, job=JOB.replace("version: 1", "version: 7").replace("cloud: local", "cloud: moon"))

    code, (found,) = report(capsys, job)

    assert code == 2
    assert len(found["problems"]) >= 2  # type: ignore[arg-type]


def test_an_input_that_is_not_there_is_a_problem_and_no_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path)
    (tmp_path / "input.jsonl").unlink()

    code, (found,) = report(capsys, job)

    assert code == 2
    assert "`input`: there is no such file" in json.dumps(found["problems"])


def test_a_job_that_is_not_there_is_a_problem_and_no_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (found,) = report(capsys, tmp_path / "none.yaml")

    assert code == 2
    assert "none.yaml" in json.dumps(found["problems"])


def test_one_bad_job_among_good_ones_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path, make_line("a"))
    bad = write(tmp_path, make_line("a"), job="version: 1\n", name="bad.yaml")

    code, found = report(capsys, good, bad)

    assert code == 2
    assert [each["ok"] for each in found] == [True, False]


def test_of_very_many_problems_the_rest_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path, *["{"] * 250)

    assert report_problems([job], as_json=False) == 2

    words = capsys.readouterr().err
    assert "... and 150 more" in words
    assert "250 problem(s)" in words


def test_brackets_in_a_line_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[red]"
    folder.mkdir()

    report_problems([write(folder, make_line("a"))], as_json=False)

    assert "[red]/job.yaml: ok, 1 requests" in capsys.readouterr().err.replace("\n", "")


def test_no_job_at_all_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="name at least one job"):
        report_problems([], as_json=False)
