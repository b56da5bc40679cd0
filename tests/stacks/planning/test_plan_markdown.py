"""A plan as Markdown: what a reviewer must see, and nothing that a job's file could make GitHub do."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from schemas.errors import CredentialError, PolicyError, SpecError
from schemas.job import Candidate, Limits, LoadedJob
from stacks.planning.plan_markdown import render_offline_markdown, render_plan_markdown, render_refusal_markdown
from stacks.policy.policy import PolicyResult, Removed
from stacks.verbs.markdown_report import print_plan_markdown
from stacks.verbs.start import prepare_run
from tests.stacks.run_files import make_h100, make_job, make_summary, make_template, plan_for

PODS = Candidate(cloud="runpod", gpu="H100", tier="secure", max_usd_per_hour=4.0)


def test_a_plan_shows_requests_price_range_offers_limits_and_the_policys_result() -> None:
    job = make_job(candidates=[PODS], replicas=2, limits=Limits(max_usd=25, max_hours=6))
    removed = Removed(
        rule="regions", why="", candidate=1, cloud="runpod", gpu="H100", region="EU-1", price_usd_per_hour=3
    )
    plan = plan_for(job, make_h100("US-1"), make_h100("US-2", available=False))
    plan = msgspec.structs.replace(
        plan, policy=PolicyResult(file="policy.yaml", rules=("regions",), removed=(removed,))
    )

    text = render_plan_markdown("jobs/tickets.yaml", plan)

    low, likely, high = plan.estimate.low_usd, plan.estimate.likely_usd, plan.estimate.high_usd
    assert "### `jobs/tickets.yaml`: ready" in text
    assert "**100** requests to `/v1/chat/completions` with `tiny@1.0.0` on 2 machines." in text
    assert f"| cost in USD | **{low:.2f}** | **{likely:.2f}** | **{high:.2f}** |" in text
    assert "| 1 | runpod | H100 | secure | US-1 | 3.00 |   |" in text
    assert "| 2 | runpod | H100 | secure | US-2 | 3.00 | sold out |" in text
    assert "Limits: at most **25.00 USD**, at most 6 h 00." in text
    assert "`the plan keeps to policy.yaml (regions)`" in text
    assert "`regions removes 1 offer of candidate 1: runpod H100 in EU-1 at 3.00`" in text


def test_of_very_many_offers_the_rest_is_counted() -> None:
    plan = plan_for(make_job(candidates=[PODS]), *(make_h100(f"R-{number}") for number in range(14)))

    text = render_plan_markdown("j.yaml", plan)

    assert "| 10 | runpod" in text and "| 11 | runpod" not in text
    assert "and 4 more" in text


def test_without_prices_the_candidates_and_their_limits_are_shown() -> None:
    loaded = LoadedJob(
        job=make_job(candidates=[PODS], limits=Limits(max_usd=25, max_hours=6)), template=make_template()
    )

    text = render_offline_markdown("j.yaml", loaded, make_summary(), "RUNPOD_API_KEY is not set", [])

    assert "### `j.yaml`: valid, without prices" in text
    assert "| runpod | `H100` | secure |   | 4.00 |" in text
    assert "`RUNPOD_API_KEY is not set`" in text
    assert "at most **25.00 USD**" in text


NASTY = "@octocat <img src=x> [a](http://example.org) `spoof` | cell\n# head"


def test_nothing_of_a_jobs_file_is_markdown_or_a_mention() -> None:
    loaded = LoadedJob(
        job=make_job(candidates=[Candidate(cloud="runpod", gpu=NASTY)], template=NASTY), template=make_template()
    )
    error = SpecError(NASTY, fix=NASTY)
    policy = PolicyResult(
        file="p", rules=(), removed=(Removed(rule="gpus", why=NASTY, candidate=1, cloud="runpod", gpu=NASTY),)
    )
    plan = msgspec.structs.replace(plan_for(make_job(candidates=[PODS]), make_h100()), policy=policy)
    texts = [
        render_offline_markdown(NASTY, loaded, make_summary(), NASTY, []),
        render_refusal_markdown(NASTY, error),
        render_plan_markdown(NASTY, plan, [NASTY]),
    ]

    for text in texts:
        lines = [line for line in text.splitlines() if "octocat" in line]
        assert lines
        for line in lines:
            inside = line.split("`")[1::2]
            outside = "".join(line.split("`")[0::2])
            assert any("octocat" in part for part in inside)
            assert "octocat" not in outside and "spoof" not in outside and "<img" not in outside and "](" not in outside


def test_a_refusal_names_the_code_and_every_reason() -> None:
    error = PolicyError("a\nb", fix="do this", rule="max_hours")

    text = render_refusal_markdown("j.yaml", error)

    assert "### `j.yaml`: refused, exit code 5" in text
    assert "- `a`\n- `b`\n- `do this`" in text


def write_job(folder: Path, cloud: str) -> Path:
    body = {"model": "qwen2.5-7b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (folder / "input.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "job.yaml").write_text(
        "version: 1\nname: tickets\ninput: input.jsonl\ntemplate: qwen2-5-7b@v1.0.0\n"
        f"machines: {{candidates: [{{cloud: {cloud}, gpu: A10}}]}}\nlimits: {{max_usd: 5, max_hours: 1}}\n"
    )
    return folder / "job.yaml"


def test_without_any_key_a_good_job_is_told_to_be_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan_markdown(write_job(tmp_path, "lambda"), line_limit=0)

    text = capsys.readouterr().out
    assert "job.yaml`: valid, without prices" in text
    assert "**1** requests" in text and "LAMBDA_CLOUD_API_KEY is not set" in text


def test_a_bad_job_is_told_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write_job(tmp_path, "moon")

    with pytest.raises(SpecError) as caught:
        print_plan_markdown(job, line_limit=0)

    assert not isinstance(caught.value, CredentialError)
    text = capsys.readouterr().out
    assert "refused, exit code 2" in text and "`5:33 " in text


def forget_object_keys(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_without_keys_for_s3_a_good_job_is_told_to_be_valid_though_its_input_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_object_keys(monkeypatch, tmp_path)
    job = write_job(tmp_path, "lambda")
    job.write_text(job.read_text().replace("input: input.jsonl", "input: s3://bucket/in.jsonl"))

    print_plan_markdown(job, line_limit=0)

    text = capsys.readouterr().out
    assert "job.yaml`: valid, without prices" in text
    assert "since the input is in S3 and there is no key here" in text and "there are no keys for S3" in text


def test_without_keys_for_s3_a_job_that_only_writes_there_has_its_plan_and_what_was_not_seen_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_object_keys(monkeypatch, tmp_path)
    job = write_job(tmp_path, "local")
    text = job.read_text().replace(", gpu: A10", "").replace("qwen2-5-7b@v1.0.0", "tiny-chat@1.0.0")
    job.write_text(f"{text}output: s3://bucket/out/\n")
    (tmp_path / "input.jsonl").write_text((tmp_path / "input.jsonl").read_text().replace("qwen2.5-7b", "tiny-chat"))

    print_plan_markdown(job, line_limit=0)

    shown = capsys.readouterr().out
    assert "job.yaml`: ready" in shown and "**1** requests" in shown
    assert "- `whether a run still writes to s3://bucket/out/ was not seen: there are no keys for S3`" in shown
    with pytest.raises(CredentialError, match="there are no keys for S3"):
        prepare_run(job)
