from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from schemas.job import Candidate, Dispatch, Job, Limits, LoadedJob, load_job
from schemas.job_skeleton import render_job_skeleton
from tests.schemas.spec_files import JOB, PROJECT, TEMPLATE, break_text, load, write_job

SMALLEST = """\
version: 1
name: a
input: data/tickets.jsonl
template: qwen
machines:
  candidates: [{cloud: local}]
"""


def test_paths_count_from_the_jobs_folder_and_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_job(tmp_path)
    monkeypatch.chdir(tmp_path.parent)

    job = load_job(Path(tmp_path.name) / "job.yaml").job

    assert job.input == str(tmp_path.resolve() / "data" / "tickets.jsonl")
    assert job.output == str(tmp_path.resolve() / "results")
    assert job.source == str(tmp_path.resolve() / "job.yaml")


def test_what_is_left_out_has_its_documented_default(tmp_path: Path) -> None:
    job = load(tmp_path, SMALLEST).job

    assert (job.endpoint, job.output, job.completion_window_s) == ("/v1/chat/completions", "", 86400)
    assert (job.machines.replicas, job.machines.min_replicas, job.machines.rank) == (1, 1, "order")
    assert job.limits == Limits(max_usd=None, max_hours=None, boot_minutes=30, boot_usd=None, heartbeat_minutes=30)
    assert job.dispatch == Dispatch(max_concurrency=0, max_retries=5, request_timeout_s=0)
    assert job.costs_money is False


def test_candidates_take_from_the_template_what_they_leave_out(tmp_path: Path) -> None:
    template = TEMPLATE.replace("count: 1", "count: 2\n    interconnect: nvlink\n    sku_hint: gpu_2x_h100").replace(
        "tp: 1", "tp: 2"
    )
    job = break_text(
        JOB,
        "    - cloud: lambda\n",
        "    - cloud: lambda\n    - {cloud: runpod, any: {min_gb: 48}, min_cuda: 12.8}\n    - {cloud: local}\n",
    )

    candidates = load(tmp_path, job, template=template).job.machines.candidates

    image = "vllm/vllm-openai:v0.32.0"
    assert candidates == (
        Candidate(cloud="runpod", gpu="H100", min_gb=24, count=2, tier="secure", interconnect="nvlink", image=image),
        Candidate(cloud="lambda", gpu="H100", min_gb=24, count=2, interconnect="nvlink", sku_hint="gpu_2x_h100"),
        Candidate(cloud="runpod", gpu="", min_gb=48, count=2, min_cuda="12.8", interconnect="nvlink", image=image),
        Candidate(cloud="local", gpu="cpu", count=2),
    )


def test_a_pods_image_is_the_candidates_then_the_templates_and_else_left_to_the_settings(tmp_path: Path) -> None:
    named = load(tmp_path, break_text(JOB, "tier: secure", "image: me/own:1"))
    without = load(tmp_path, template=break_text(TEMPLATE, "    image: vllm/vllm-openai:v0.32.0\n", ""))

    assert [each.image for each in named.job.machines.candidates] == ["me/own:1", ""]
    assert [each.image for each in without.job.machines.candidates] == ["", ""]


def test_a_job_may_ask_for_a_draft(tmp_path: Path) -> None:
    job = break_text(JOB, "template: qwen@v1.0.0\n", "template: qwen@v1.0.0\nallow_draft: true\n")

    loaded = load(tmp_path, job, template=TEMPLATE.replace("status: active", "status: draft"))

    assert [warning.code for warning in loaded.warnings] == ["draft_template"]


def test_that_a_draft_is_allowed_says_nothing_about_an_inline_spec(tmp_path: Path) -> None:
    spec = TEMPLATE.partition("spec:\n")[2]
    job = break_text(JOB, "template: qwen@v1.0.0\n", f"allow_draft: true\ndeploy:\n{spec}")

    assert [(each.line, each.code) for each in load(tmp_path, job).warnings] == [(6, "no_effect")]


def test_overrides_are_in_the_template_that_comes_back(tmp_path: Path) -> None:
    loaded = load(tmp_path, break_text(JOB, "max_model_len: 4096", 'max_model_len: "4096", max_num_seqs: 8'))

    assert loaded.job.overrides == {"max_model_len": 4096, "max_num_seqs": 8}
    assert loaded.template.spec.engine_args == {
        "max_model_len": 4096,
        "max_num_seqs": 8,
        "enable_prefix_caching": True,
    }


def test_an_inline_spec_becomes_a_template_of_the_jobs_name(tmp_path: Path) -> None:
    spec = TEMPLATE.partition("spec:\n")[2]

    loaded = load(tmp_path, break_text(JOB, "template: qwen@v1.0.0\n", f"deploy:\n{spec}"))

    assert loaded.job.template == "tickets@inline"
    assert loaded.template.model == "qwen"
    assert loaded.template.source == loaded.job.source


def test_a_bare_template_name_is_recorded_with_its_version(tmp_path: Path) -> None:
    assert load(tmp_path, SMALLEST).job.template == "qwen@v1.0.0"


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("7d", 604800), ("45s", 45), ("24h", 86400)])
def test_the_completion_window_is_in_seconds(tmp_path: Path, text: str, seconds: int) -> None:
    job = break_text(JOB, "completion_window: 24h", f"completion_window: {text}")

    assert load(tmp_path, job).job.completion_window_s == seconds


def test_the_dispatch_options_have_numbers_for_auto(tmp_path: Path) -> None:
    options = "max_concurrency: 64\n  request_timeout_s: 2.5\n  order: prefix\n  hedge: false"

    dispatch = load(tmp_path, break_text(JOB, "max_concurrency: auto", options)).job.dispatch

    assert dispatch == Dispatch(max_concurrency=64, request_timeout_s=2.5, order="prefix", hedge=False)


def test_a_loaded_job_survives_json_unchanged(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert msgspec.json.decode(msgspec.json.encode(loaded), type=LoadedJob) == loaded
    assert msgspec.json.decode(msgspec.json.encode(loaded.job), type=Job) == loaded.job


def test_a_job_may_be_json(tmp_path: Path) -> None:
    write_job(tmp_path)
    path = tmp_path / "job.json"
    path.write_text(
        '{\n\t"version": 1, "name": "a", "input": "data/tickets.jsonl", "template": "qwen",\n'
        '\t"machines": {"candidates": [{"cloud": "local"}]}\n}\n'
    )

    assert load_job(path).job.name == "a"


def test_the_projects_templates_are_found_from_any_folder(tmp_path: Path) -> None:
    job = write_job(tmp_path, SMALLEST.replace("template: qwen", "template: tiny-chat"))

    assert load_job(job).template.source == str(PROJECT / "jobs" / "templates" / "tiny-chat.yaml")


def test_templates_beside_the_job_win_over_the_projects(tmp_path: Path) -> None:
    job = write_job(
        tmp_path,
        SMALLEST.replace("qwen", "tiny-chat"),
        template=TEMPLATE.replace("name: qwen\nv", "name: tiny-chat\nv"),
    )

    assert load_job(job).template.version == "v1.0.0"


def test_the_skeleton_is_a_right_job(tmp_path: Path) -> None:
    job = write_job(tmp_path, render_job_skeleton())

    loaded = load_job(job)

    assert loaded.warnings == ()
    assert loaded.job.costs_money


def test_every_line_that_the_skeleton_offers_in_a_comment_is_right_too(tmp_path: Path) -> None:
    lines = render_job_skeleton().splitlines()
    offered = [line for line in lines if line.lstrip().startswith("# ") and (": " in line or line.endswith(":"))]
    keys = (
        "output:",
        "overrides:",
        "  engine_args:",
        "- {cloud",
        "boot_",
        "dispatch:",
        "  max_",
        "  request",
        "metadata:",
    )
    wanted = [line for line in offered if line.lstrip().removeprefix("# ").startswith(keys)]
    text = "\n".join(line.replace("# ", "", 1) if line in wanted else line for line in lines)

    loaded = load_job(write_job(tmp_path, text))

    assert len(wanted) >= 10
    assert loaded.job.metadata == {"team": "search"}
    assert [candidate.cloud for candidate in loaded.job.machines.candidates] == ["local", "runpod", "lambda"]
    assert loaded.job.limits.boot_usd == 3
