"""Broken jobs, templates and inputs through `validate`: exit 2, the right line, a fix, no traceback, and nothing contacted.

The tables of single mistakes in a job and in a template are those of tests/schemas; here they go the whole way.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stacks.verbs.validation import report_problems
from tests.runtime.batch.test_batch_bodies import CHAT, GOOD
from tests.runtime.batch.test_batch_bodies import MISTAKES as BODY_MISTAKES
from tests.schemas.spec_files import JOB, TEMPLATE, break_text, write_job
from tests.schemas.test_job_mistakes import MISTAKES as JOB_MISTAKES
from tests.schemas.test_template_mistakes import ALL as TEMPLATE_MISTAKES

Case = tuple[str, str, str]
ID = '{"custom_id": "%s", "method": "POST", "url": "/v1/chat/completions", "body": %s}'
BODY = '{"model": "qwen", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}'
LINE = ID % ("a", BODY)
OTHER = ID % ("b", BODY)


def write_case(folder: Path, job: str = JOB, template: str = TEMPLATE, lines: str = f"{LINE}\n{OTHER}\n") -> Path:
    path = write_job(folder, job, template=template)
    (folder / "data" / "tickets.jsonl").write_text(lines)
    return path


def find(path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What validate tells as data; asserts what holds for each of its problems."""
    code = report_problems([path], os.environ, as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    problems: list[dict[str, Any]] = found["problems"]
    assert code == (2 if problems else 0)
    assert all(problem["fix"] and problem["message"] and problem["code"] for problem in problems), problems
    return problems


def places(problems: list[dict[str, Any]]) -> list[Case]:
    return [(Path(each["file"]).name, f"{each['line']}:{each['column']}", each["code"]) for each in problems]


@pytest.mark.parametrize(("old", "new", "place", "words"), JOB_MISTAKES)
def test_a_broken_job(
    tmp_path: Path, old: str, new: str, place: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    problems = find(write_case(tmp_path, break_text(JOB, old, new)), capsys)

    own = [each for each in problems if each["file"].endswith("job.yaml")]
    assert f"{own[0]['line']}:{own[0]['column']}" == place
    assert [word for word in words if word not in own[0]["message"] + " " + own[0]["fix"]] == []


@pytest.mark.parametrize(("text", "old", "new", "place", "words"), TEMPLATE_MISTAKES)
def test_a_job_with_a_broken_template(
    tmp_path: Path, text: str, old: str, new: str, place: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = break_text(text, old, new)
    name = text.partition("\n")[0].removeprefix("name: ")
    job = JOB.replace("qwen@v1.0.0", name).replace("overrides:\n  engine_args: {max_model_len: 4096}\n", "")
    path = write_case(tmp_path, job, broken)

    by_itself = find(path.parent / "templates" / "qwen.yaml", capsys)
    beside_a_job = find(path, capsys)

    assert f"{by_itself[0]['line']}:{by_itself[0]['column']}" == place
    assert [word for word in words if word not in by_itself[0]["message"] + " " + by_itself[0]["fix"]] == []
    # A template whose name or version is what is broken is another one: then the job's reference is the mistake.
    assert by_itself[0] in beside_a_job or beside_a_job[0]["line"] == 6


# (the second line of the input, its code, column)
LINES: list[tuple[str, str, int]] = [
    ("{", "invalid_json_line", 2),
    ("hello", "invalid_json_line", 1),
    ("[]", "invalid_json_line", 0),
    ("null", "invalid_json_line", 0),
    (OTHER[:-1], "invalid_json_line", len(OTHER)),
    (OTHER + ",", "invalid_json_line", len(OTHER) + 1),
    (OTHER + OTHER, "invalid_json_line", len(OTHER) + 1),
    (OTHER.replace('"b"', "'b'"), "invalid_json_line", 15),
    (OTHER.replace('"b"', "NaN"), "invalid_json_line", 15),
    (OTHER.replace('"b"', '"\\ud800"'), "invalid_json_line", 22),
    (OTHER.replace("8}", "8,}"), "invalid_json_line", len(OTHER) - 0),
    (LINE, "duplicate_custom_id", 15),
    (OTHER.replace('"b"', '""'), "empty_custom_id", 15),
    (OTHER.replace('"b"', "7"), "missing_custom_id", 15),
    (OTHER.replace('"b"', "null"), "missing_custom_id", 15),
    (OTHER.replace("custom_id", "id"), "missing_custom_id", 0),
    (OTHER.replace("POST", "GET"), "invalid_method", 30),
    (OTHER.replace('"method": "POST", ', ""), "invalid_method", 0),
    (OTHER.replace("/v1/chat", "/v1"), "url_mismatch", 45),
    (OTHER.replace("/v1/chat/completions", "https://api.openai.com/v1/chat/completions"), "url_mismatch", 45),
    (OTHER.replace('"url": "/v1/chat/completions", ', ""), "url_mismatch", 0),
    (OTHER.replace(BODY, "[]"), "invalid_body", 77),
    (OTHER.replace(BODY, '"{}"'), "invalid_body", 77),
    (OTHER.replace(f', "body": {BODY}', ""), "invalid_body", 0),
    (OTHER.replace('"qwen"', '"gpt-4o"'), "model_mismatch", 87),
    (OTHER.replace('"qwen"', "3"), "model_mismatch", 87),
    (OTHER.replace('"model": "qwen", ', ""), "model_mismatch", 77),
    (OTHER.replace('"max_tokens": 8', '"stream": true'), "stream_not_supported", 154),
    (OTHER.replace('"max_tokens": 8', '"max_tokens": 4096'), "too_many_tokens", 158),
    (OTHER.replace('"max_tokens": 8', '"max_completion_tokens": 100000'), "too_many_tokens", 169),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "column"), LINES, ids=[each[0][-40:] for each in LINES])
def test_a_broken_line(tmp_path: Path, line: str, code: str, column: int, capsys: pytest.CaptureFixture[str]) -> None:
    problems = find(write_case(tmp_path, lines=f"{LINE}\n{line}\n{ID % ('c', BODY)}\n"), capsys)

    assert places(problems) == [("tickets.jsonl", f"2:{column}", code)]


@pytest.mark.parametrize(("endpoint", "change", "path", "words"), BODY_MISTAKES)
def test_a_broken_body(
    tmp_path: Path, endpoint: str, change: dict[str, Any], path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {key: value for key, value in (GOOD[endpoint] | change).items() if value is not ...}
    good, bad = (
        json.dumps({"custom_id": name, "method": "POST", "url": endpoint, "body": {"model": "qwen"} | each})
        for name, each in (("a", GOOD[endpoint]), ("b", body))
    )
    job = JOB.replace("endpoint: /v1/chat/completions", f"endpoint: {endpoint}")
    template = TEMPLATE.replace("    - /v1/chat/completions", f"    - {endpoint}")

    (problem,) = find(write_case(tmp_path, job, template, f"\n{good}\n{bad}\n"), capsys)

    assert (problem["line"], problem["code"], problem["path"]) == (3, "invalid_body", path)
    assert problem["column"] > 1
    assert words in problem["message"]


LOCAL = JOB.partition("machines:")[0] + "machines:\n  candidates: [{cloud: local}]\n"
TINY = LOCAL.replace("qwen@v1.0.0", "tiny-chat")
# What is wrong only when job and template meet: (job, template, the job's mistakes)
PAIRS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (TINY.replace("max_model_len: 4096", "block_size: 16"), TEMPLATE, [("8:17", "no_effect")]),
    (TINY.replace("max_model_len: 4096", "seed: 1, swap_space: 4"), TEMPLATE, [("8:17", "no_effect"), ("8:26", "no_effect")]),
    (TINY.replace("/v1/chat/completions", "/v1/embeddings"), TEMPLATE, [("5:11", "endpoint")]),
    (JOB.replace("max_model_len: 4096", "swap_space: 4"), TEMPLATE.replace("type: vllm", "type: sglang"), [("8:17", "no_effect")]),
    (JOB.replace("max_model_len: 4096", "max_num_batched_tokens: 32"), TEMPLATE, [("8:41", "conflict")]),
    (JOB.replace("max_model_len: 4096", "runner: pooling"), TEMPLATE, [("8:25", "endpoint")]),
    (JOB.replace("max_model_len: 4096", "task: embed"), TEMPLATE, [("8:23", "endpoint")]),
    (JOB.replace("max_model_len: 4096", "quantization: awq"), TEMPLATE, [("8:31", "conflict")]),
    (JOB.replace("max_model_len: 4096", "dtype: half"), TEMPLATE, [("8:24", "conflict")]),
    (JOB.replace("max_model_len: 4096", "host: 0.0.0.0"), TEMPLATE, [("8:17", "reserved")]),
    (JOB.replace("max_model_len: 4096", "hf_token: x"), TEMPLATE, [("8:17", "reserved")]),
    (JOB.replace("max_model_len: 4096", "served_model_name: x"), TEMPLATE, [("8:17", "reserved")]),
    (
        JOB.replace("max_model_len: 4096", "max_model_len: 9000"),
        TEMPLATE.replace("max_num_seqs: 64", "max_num_batched_tokens: 8192\n    enable_chunked_prefill: false"),
        [("8:3", "conflict")],
    ),
    (
        JOB.replace("max_model_len: 4096", "speculative_model: a/b, num_speculative_tokens: 2")
        .replace("/v1/chat/completions", "/v1/embeddings"),
        TEMPLATE.replace("/v1/chat/completions", "/v1/embeddings"),
        [("8:17", "conflict")],
    ),
    (JOB, TEMPLATE.replace("status: active", "status: draft"), [("6:11", "draft_template")]),
    (
        JOB.replace("qwen@v1.0.0", "qwen"),
        TEMPLATE.replace("status: active", "status: deprecated"),
        [("6:11", "no_active_template")],
    ),
    (
        JOB.replace("cloud: lambda", "{cloud: lambda, count: 1}"),
        TEMPLATE.replace("count: 1", "count: 2").replace("tp: 1", "tp: 2"),
        [("17:30", "parallelism")],
    ),
    (JOB, TEMPLATE.replace("type: H100", "type: H10000"), [("17:7", "unknown_gpu")]),
    (JOB.replace("- cloud: lambda", "- {cloud: lambda, gpu: RTX-4090}"), TEMPLATE, [("17:28", "unknown_gpu")]),
    (JOB, TEMPLATE.replace("vram_gb: 24", "vram_gb: 141"), [("15:12", "memory"), ("17:7", "memory")]),
    (
        JOB,
        TEMPLATE.replace("vram_gb: 24", "interconnect: pcie").replace("type: H100", "type: H100-SXM"),
        [("17:7", "interconnect")],
    ),
    (JOB.replace("gpu: H100", "gpu: gpu_8x_h100_sxm5"), TEMPLATE, [("15:12", "unknown_gpu")]),
    (JOB.replace("results/", "data/../data"), TEMPLATE, []),
    (JOB.replace("tickets.jsonl", "output.jsonl").replace("results/", "data"), TEMPLATE, [("4:9", "bad_output")]),
    (JOB.replace("results/", "data/tickets.jsonl/deeper"), TEMPLATE, [("4:9", "bad_output")]),
]  # fmt: skip


@pytest.mark.parametrize(("job", "template", "expected"), PAIRS, ids=[str(number) for number in range(len(PAIRS))])
def test_a_job_and_a_template_that_do_not_fit(
    tmp_path: Path, job: str, template: str, expected: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_case(tmp_path, job, template)
    (tmp_path / "data" / "output.jsonl").write_text(LINE)

    found = places(find(path, capsys))

    assert [(place, code) for file, place, code in found if file == "job.yaml"] == expected
    assert [file for file, _, _ in found if file == "qwen.yaml"] == []


def test_an_output_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.job_check.os.access", lambda path, mode: path != tmp_path)

    assert places(find(write_case(tmp_path), capsys)) == [("job.yaml", "4:9", "bad_output")]


def test_there_are_two_hundred_of_them_and_more() -> None:
    tables = [JOB_MISTAKES, TEMPLATE_MISTAKES, LINES, BODY_MISTAKES, [pair for pair in PAIRS if pair[2]]]

    assert sum(map(len, tables)) >= 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


BOUNDED = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECES = st.text(max_size=3) | st.sampled_from(
    ["\n", "  ", "- ", ": ", "{", "]", '"', "#", "&a", "*a", "\t", "\x00", "é", "-1"]
)


def check_any(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it says, it says it with a place: a file, and a line that the file has."""
    for problem in find_any(path, capsys):
        text = Path(problem["file"]).read_bytes() if Path(problem["file"]).is_file() else b""
        assert (
            0
            <= problem["line"]
            <= text.count(b"\n") + text.count(b"\r") + text.decode("utf-8", "replace").count("\x85") + 1
        )


def find_any(path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    code = report_problems([path], os.environ, as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    problems: list[dict[str, Any]] = found["problems"]
    assert code == (2 if problems or found["omitted"] else 0)
    assert all(problem["message"] and problem["code"] for problem in problems)
    return problems


@BOUNDED
@given(start=st.integers(0, len(JOB)), length=st.integers(0, 9), new=PIECES)
def test_a_job_with_any_piece_changed(
    folder: Path, start: int, length: int, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (JOB[:start] + new + JOB[start + length :]).encode("utf-8", "replace").decode()

    check_any(write_case(folder, text), capsys)


@BOUNDED
@given(start=st.integers(0, len(TEMPLATE)), length=st.integers(0, 9), new=PIECES)
def test_a_template_with_any_piece_changed(
    folder: Path, start: int, length: int, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (TEMPLATE[:start] + new + TEMPLATE[start + length :]).encode("utf-8", "replace").decode()

    check_any(write_case(folder, template=text), capsys)


@BOUNDED
@given(start=st.integers(0, len(LINE)), length=st.integers(0, 9), new=PIECES)
def test_an_input_with_any_piece_changed(
    folder: Path, start: int, length: int, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (LINE[:start] + new + LINE[start + length :]).encode("utf-8", "replace").decode()

    check_any(write_case(folder, lines=f"{text}\n{OTHER}\n"), capsys)


@BOUNDED
@given(start=st.integers(0, len(LINE)), length=st.integers(0, 9), new=PIECES)
def test_the_dispatcher_would_take_every_line_that_validate_takes(
    folder: Path, start: int, length: int, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (LINE[:start] + new + LINE[start + length :]).encode("utf-8", "replace").decode()
    path = write_case(folder, lines=f"{text}\n{OTHER}\n")

    if not find_any(path, capsys):
        lines = (folder / "data" / "tickets.jsonl").read_bytes().split(b"\n")
        requests = [json.loads(line) for line in lines if line.strip()]
        assert [request["url"] for request in requests] == [CHAT] * len(requests)
        assert len({request["custom_id"] for request in requests}) == len(requests)
        assert all(request["body"]["messages"][0]["role"] for request in requests)
