"""`validate`: every problem of job and input at once, as words or as data, with an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import Problem, SpecError
from schemas.job import load_job
from schemas.template import load_template
from stacks.verbs.github import render_annotation
from stacks.verbs.validation import report_problems

PROJECT = Path(__file__).parents[3]
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
    code = report_problems(jobs, os.environ, as_json=True)
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


def test_bad_lines_of_one_kind_are_shown_three_times_and_then_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_line("a", model="other")
    job = write(tmp_path, *["{"] * 5, other, *["{"] * 245, other.replace('"a"', '"b"'))

    assert report_problems([job], os.environ, as_json=False) == 2

    words = capsys.readouterr().err
    assert words.count("not valid JSON") == 3
    assert "... and 247 more [invalid_json_line]: lines 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, ..." in words
    assert words.count("this batch is served by") == 1
    assert "... and 1 more [model_mismatch]\n" in words
    assert "252 problems" in words


def test_as_data_the_first_hundred_bad_lines_are_told_and_all_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (found,) = report(capsys, write(tmp_path, *["{"] * 250))

    assert len(found["problems"]) == 100  # type: ignore[arg-type]
    assert (found["omitted"], found["problem_counts"]) == (150, {"invalid_json_line": 250})


def test_mistakes_of_job_template_and_input_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(
        tmp_path, make_line("a"), "{", job=JOB.replace("max_hours: 1", "max_hours: -1").replace("tiny-chat", "own")
    )
    (tmp_path / "templates").mkdir()
    text = (PROJECT / "jobs" / "templates" / "tiny-chat.yaml").read_text().replace("name: tiny-chat", "name: own", 1)
    (tmp_path / "templates" / "own.yaml").write_text(text.replace("max_num_seqs: 8", "max_num_seqs: many"))

    code, (found,) = report(capsys, job)

    places = [(Path(each["file"]).name, each["line"]) for each in found["problems"]]  # type: ignore[attr-defined]
    assert code == 2
    assert places == [("job.yaml", 10), ("own.yaml", 16), ("input.jsonl", 2)]


def test_lines_are_held_to_the_endpoint_and_model_of_a_job_whose_limits_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path, make_line("a", model="other"), job=JOB.replace("max_hours: 1", "max_hours: -1"))

    _, (found,) = report(capsys, job)

    assert [each["code"] for each in found["problems"]] == ["out_of_range", "model_mismatch"]  # type: ignore[attr-defined]


def test_annotations_for_github_name_file_line_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = write(tmp_path, make_line("a"), make_line("b", model="50%, or\n::more"), job=JOB.replace("@1.0.0", "@v2"))

    assert report_problems([job], os.environ, as_json=False, as_github=True) == 2

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("::error file=job.yaml,line=5,col=11,title=bad_format::`template`")
    assert "%0AWrite name@version" in lines[0]
    assert lines[1].startswith("::error file=input.jsonl,line=2,col=87,title=model_mismatch::model is '50%25, or")


def test_annotations_escape_what_would_end_them() -> None:
    problem = Problem(file="a,b:c.yaml", line=3, message="50%\r\n::error::x", code="c", fix="do: it, now")

    text = render_annotation(problem, "warning", root=Path("/nowhere"))

    assert text == "::warning file=a%2Cb%3Ac.yaml,line=3,title=c::50%25%0D%0A::error::x%0Ado: it, now"


def test_warnings_are_annotations_of_a_job_that_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    twice = JOB.replace("    - {cloud: local}\n", "    - {cloud: local}\n    - {cloud: local}\n")

    assert report_problems([write(tmp_path, make_line("a"), job=twice)], os.environ, as_json=False, as_github=True) == 0

    assert capsys.readouterr().out.startswith("::warning file=job.yaml,line=10,col=7,title=repeated_entry::")


def test_of_very_many_problems_github_is_told_the_number_of_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_problems([write(tmp_path, *["{"] * 250)], os.environ, as_json=False, as_github=True)

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 101
    assert lines[-1].endswith("title=more::150 more problems, in lines further down")


def test_data_and_annotations_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="exclude each other"):
        report_problems([write(tmp_path, make_line("a"))], os.environ, as_json=True, as_github=True)


def test_everything_that_is_shipped_is_in_order_and_every_template_has_a_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = sorted((PROJECT / "jobs").glob("*.yaml"))
    templates = sorted((PROJECT / "jobs" / "templates").glob("*.yaml"))

    code, found = report(capsys, *jobs, *templates)

    assert (code, [each["warnings"] for each in found if each["warnings"]]) == (0, [])
    assert {load_job(job).template.name for job in jobs} == {load_template(path).name for path in templates}


def test_a_template_is_checked_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = PROJECT / "jobs" / "templates" / "tiny-chat.yaml"
    bad = tmp_path / "bad.yaml"
    bad.write_text(good.read_text().replace("max_num_seqs: 8", "max_num_seqs: 0"))

    code, found = report(capsys, good, bad)

    assert code == 2
    assert [(each["kind"], each["ok"]) for each in found] == [("template", True), ("template", False)]
    assert [each["line"] for each in found[1]["problems"]] == [16]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("magic", "words"),
    [
        (b"\x1f\x8b\x08", ["compressed with gzip", "gunzip --keep input.jsonl"]),
        (b"\x28\xb5\x2f\xfd", ["compressed with zstd", "unzstd input.jsonl"]),
        (b"BZh91", ["compressed with bzip2"]),
        (b"\xfd7zXZ\x00", ["compressed with xz"]),
        (b"PK\x03\x04", ["a zip archive"]),
        (b"PAR1", ["a Parquet table"]),
        ("\ufeff{}".encode("utf-16-le"), ["UTF-16", "iconv"]),
        (b'[\n  {"custom_id": "a"}]', ["one JSON list", "jq --compact-output"]),
    ],
)
def test_an_input_in_another_format_is_one_problem_with_what_to_do(
    magic: bytes, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path)
    (tmp_path / "input.jsonl").write_bytes(magic + b"\x00\xff" * 500)

    code, (found,) = report(capsys, job)

    (problem,) = found["problems"]  # type: ignore[misc]
    told = f"{problem['message']} {problem['fix']}"  # type: ignore[index]
    assert (code, problem["line"], problem["column"]) == (2, 3, 8)  # type: ignore[index]
    assert [word for word in words if word not in told] == [], told


@pytest.mark.parametrize(
    ("template", "candidate", "column", "words"),
    [
        ("", "{cloud: runpod, gpu: H1000}", 28, ["no GPU is called 'H1000'", "H100"]),
        ("", "{cloud: runpod, gpu: A10}", 28, ["runpod has no A10", "any: {min_gb"]),
        ("", "{cloud: lambda, gpu: L4}", 28, ["lambda has no L4"]),
        ("vram_gb: 24", "{cloud: runpod, gpu: RTX-A4000}", 28, ["has 16 GB, and at least 24 are asked for"]),
        ("interconnect: nvlink", "{cloud: lambda}", 7, ["H100-PCIE is not connected by nvlink"]),
        ("interconnect: pcie", "{cloud: runpod, gpu: B200, count: 2}", 28, ["B200 is not connected by pcie"]),
    ],
)
def test_a_gpu_that_no_cloud_can_give_is_found_without_asking_one(
    template: str, candidate: str, column: int, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = "limits: {max_hours: 1, max_usd: 1}"
    text = (
        JOB.replace("tiny-chat@1.0.0", "own")
        .replace("{cloud: local}", candidate)
        .replace("limits: {max_hours: 1}", limits)
    )
    count = 2 if "count" in candidate else 1
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "own.yaml").write_text(f"""\
name: own
version: 1.0.0
spec:
  engine: {{type: vllm}}
  model_source: {{type: huggingface, uri: a/b}}
  accelerator: {{type: H100-PCIE, count: {count}, {template}}}
  parallelism: {{tp: {count}}}
  supported_endpoints: [/v1/chat/completions]
  served_model_name: tiny-chat
""")

    code, (found,) = report(capsys, write(tmp_path, make_line("a"), job=text))

    (problem,) = found["problems"]  # type: ignore[misc]
    told = f"{problem['message']} {problem['fix']}"  # type: ignore[index]
    assert (code, problem["line"], problem["column"]) == (2, 9, column)  # type: ignore[index]
    assert [word for word in words if word not in told] == [], told


def test_brackets_in_a_line_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[red]"
    folder.mkdir()

    report_problems([write(folder, make_line("a"))], os.environ, as_json=False)

    assert "[red]/job.yaml: ok, 1 request" in capsys.readouterr().err.replace("\n", "")


def test_no_job_at_all_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="name at least one job"):
        report_problems([], os.environ, as_json=False)


def test_validate_loads_no_client_of_a_cloud() -> None:
    """It contacts nothing, and what it does not load costs neither memory nor time."""
    code = "import sys, stacks.verbs.validation; print(sorted({'aiohttp', 'httpx', 'obstore', 'pulumi'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_receivers_are_checked_by_the_host_they_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    addresses = (
        "http://localhost.evil.example/x",
        "http://127.evil.example/x",
        "http://127.0.0.1:8080/x",
        "file:~no-such-user-here/x",
    )
    job = write(tmp_path, make_line("a"))
    targets = "".join(f"  - {{type: webhook, url: {json.dumps(each)}}}\n" for each in addresses)
    job.write_text(f"{job.read_text()}\nnotify:\n{targets}")

    _, (found,) = report(capsys, job)

    problems = found["problems"]
    assert isinstance(problems, list)
    assert [problem["code"] for problem in problems] == ["no_tls", "no_tls"]


def test_a_wrong_address_in_the_environment_is_exit_2_and_one_that_is_not_set_only_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write(tmp_path, make_line("a"))
    job.write_text(f"{job.read_text()}\nnotify: [{{type: slack, url: env:NOT_SET_ANYWHERE}}]\n")

    code, (found,) = report(capsys, job)
    assert (code, found["problems"]) == (0, [])
    assert [warning["code"] for warning in found["warnings"]] == ["notify_not_set"]  # type: ignore[attr-defined]

    monkeypatch.setenv("LEASEHOLD_NOTIFY_WEBHOOK", "ftp://hooks.example.org/hidden-part")
    code, (found,) = report(capsys, job)

    assert code == 2
    assert [problem["file"] for problem in found["problems"]] == ["LEASEHOLD_NOTIFY_WEBHOOK"]  # type: ignore[attr-defined]
    assert "hidden-part" not in json.dumps(found)
