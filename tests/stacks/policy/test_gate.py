"""Which policy is in force, and what validate and plan do with it: exit 5, the rule's name, and what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import LimitError, PolicyError, SpecError
from schemas.job import Candidate, LoadedJob, load_job
from stacks.planning.plan import load_plan, save_plan
from stacks.planning.planning import draw_up_plan
from stacks.policy.gate import PolicyGate, load_policy_in_force
from stacks.run_folder import get_home, open_run
from stacks.runs.run_status import StatusWriter
from stacks.verbs.resuming import ResumeOptions, resume_run
from stacks.verbs.running import show_plan
from stacks.verbs.start_options import StartOptions
from stacks.verbs.validation import report_problems
from tests.stacks.run_files import make_h100, make_job, make_template
from toolchain.version import find_version

PODS = Candidate(cloud="runpod", gpu="H100")
JOB = """\
version: 1
name: tickets
input: input.jsonl
template: qwen2-5-7b@v1.0.0
completion_window: 1h
machines:
  candidates:
    - {cloud: local}
    - {cloud: lambda, gpu: A10}
limits: {max_usd: 5, max_hours: 1}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    body = {"model": "qwen2.5-7b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "input.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path / "job.yaml"


@pytest.fixture
def write_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(text: str) -> None:
        (tmp_path / "rules.yaml").write_text(f"version: 1\n{text}\n")
        monkeypatch.setenv("LEASEHOLD_POLICY", str(tmp_path / "rules.yaml"))

    return write


def test_without_a_file_there_is_no_policy_and_everything_goes_through(tmp_path: Path) -> None:
    assert load_policy_in_force({}, tmp_path) is None
    gate = PolicyGate(LoadedJob(job=make_job(candidates=[PODS]), template=make_template()), {})
    offers = [(PODS, [make_h100()])]

    assert gate.sift(offers) is offers
    assert gate.result is None


def test_the_projects_own_file_counts_unless_another_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\nmax_hours: 1\n")
    (tmp_path / "other.yaml").write_text("version: 1\nmax_hours: 2\n")

    own = load_policy_in_force({"LEASEHOLD_POLICY": " "}, tmp_path)
    named = load_policy_in_force({"LEASEHOLD_POLICY": str(tmp_path / "other.yaml")}, tmp_path)

    assert own is not None and own.max_hours == 1
    assert named is not None and named.max_hours == 2


def test_a_named_policy_that_is_not_there_is_an_error_and_no_freedom(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no policy file") as caught:
        load_policy_in_force({"LEASEHOLD_POLICY": str(tmp_path / "gone.yaml")}, tmp_path)

    assert caught.value.where == "LEASEHOLD_POLICY"
    assert str(tmp_path / "gone.yaml") in caught.value.what


def test_problems_of_the_policy_name_the_job_as_other_problems_do(
    job: Path, write_policy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy("max_hours: 0.5")
    monkeypatch.chdir(job.parent)
    with_mistake = Path("other.yaml")
    with_mistake.write_text(f"{job.read_text()}surprise: 1\n")

    assert report_problems([Path("job.yaml"), with_mistake], os.environ, as_json=True) == 2

    found = json.loads(capsys.readouterr().out)
    assert [problem["file"] for report in found for problem in report["problems"]] == ["job.yaml", "other.yaml"]
    with pytest.raises(PolicyError) as caught:
        show_plan(job.absolute(), line_limit=0, as_json=False)
    assert caught.value.where == "job.yaml"
    assert caught.value.fix.endswith("The policy is rules.yaml.")


def test_a_gpu_that_nobody_knows_is_a_mistake_of_the_policy(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\ngpus:\n  - A10\n  - H10O\n")

    with pytest.raises(SpecError) as caught:
        load_policy_in_force({}, tmp_path)

    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (4, 5)
    assert "H100" in problem.fix


def test_validate_ends_with_5_and_names_each_rule_at_its_place(
    job: Path, write_policy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy("max_usd_per_job: 4\nrequired_metadata: [team]")

    assert report_problems([job], os.environ, as_json=True) == LimitError.exit_code == 5

    (report,) = json.loads(capsys.readouterr().out)
    assert [(each["code"], each["line"]) for each in report["problems"]] == [
        ("policy.required_metadata", 1),
        ("policy.max_usd_per_job", 10),
    ]


def test_validate_ends_with_2_when_the_job_has_mistakes_of_its_own_too(job: Path, write_policy: Any) -> None:
    write_policy("max_usd_per_job: 4")
    bad = job.with_name("bad.yaml")
    bad.write_text("version: 1\n")

    assert report_problems([job, bad], os.environ, as_json=True) == 2


def test_validate_warns_of_a_candidate_that_goes_and_refuses_when_none_is_left(
    job: Path, write_policy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy("clouds: [local]")
    assert report_problems([job], os.environ, as_json=True) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert [(each["code"], each["line"]) for each in report["warnings"]] == [("policy.clouds", 9)]

    write_policy("clouds: [runpod]")
    assert report_problems([job], os.environ, as_json=True) == 5
    (report,) = json.loads(capsys.readouterr().out)
    assert [each["code"] for each in report["problems"]] == ["policy.clouds"]
    assert report["warnings"] == []


def test_a_plan_says_which_leasehold_drew_it_up(job: Path, write_policy: Any) -> None:
    write_policy("clouds: [local]")

    plan = draw_up_plan(job, run="r")

    assert plan.leasehold is not None
    assert plan.leasehold.version == find_version().version


def test_a_plan_asks_no_cloud_that_the_policy_forbids_and_keeps_what_was_removed(
    job: Path, write_policy: Any, tmp_path: Path
) -> None:
    """There is no key for Lambda here: it must not even be asked."""
    write_policy("clouds: [local]\nmax_usd_per_job: 5")
    notices: list[str] = []

    plan = draw_up_plan(job, run="r", on_notice=notices.append)

    assert notices == []
    assert plan.clouds == ("local",)
    assert plan.policy is not None
    assert plan.policy.rules == ("max_usd_per_job", "clouds")
    assert [(each.rule, each.candidate) for each in plan.policy.removed] == [("clouds", 2)]
    assert load_plan(save_plan(plan, tmp_path / "plan.json") and tmp_path / "plan.json") == plan


def test_a_plan_that_is_refused_names_the_rule_also_as_data(
    job: Path, write_policy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_policy("max_usd_per_job: 4")

    with pytest.raises(PolicyError, match=r"allows 4 USD a job \[policy\.max_usd_per_job\]") as caught:
        show_plan(job, line_limit=0, as_json=True)

    assert caught.value.exit_code == 5
    assert caught.value.fix.startswith("Write `max_usd: 4`")
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert (refused["rule"], refused["job"]) == ("max_usd_per_job", str(job))


@pytest.mark.parametrize("mode", ["resume", "retry"])
def test_what_is_left_of_an_earlier_run_is_held_to_the_policy_of_today(
    job: Path, write_policy: Any, capsys: pytest.CaptureFixture[str], mode: Any
) -> None:
    write_policy("clouds: [local]")
    folder = open_run("earlier", get_home())
    folder.make()
    save_plan(draw_up_plan(job, run="earlier"), folder.plan)
    StatusWriter(folder, "tickets", 1).end("cancelled", "verified", 7, "stopped by the user")
    write_policy("clouds: [local]\nmax_usd_per_job: 4")

    with pytest.raises(PolicyError, match="allows 4 USD a job"):
        resume_run("earlier", ResumeOptions(mode=mode, start=StartOptions(as_json=True)))

    assert json.loads(capsys.readouterr().out)["refused"]["rule"] == "max_usd_per_job"
    assert [path.name for path in (get_home() / "runs").iterdir()] == ["earlier"]


def test_offers_that_are_all_removed_end_with_5_and_the_rule_that_removed_most(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("version: 1\nregions: [EU-*]\nmax_usd_per_hour: 5\n")
    loaded = LoadedJob(job=make_job(candidates=[PODS]), template=make_template())
    gate = PolicyGate(loaded, {"LEASEHOLD_POLICY": str(tmp_path / "p.yaml")})

    with pytest.raises(PolicyError, match="regions removed 2, max_usd_per_hour removed 1") as caught:
        gate.sift([(PODS, [make_h100("US-1"), make_h100("US-2"), make_h100("EU-1", 5.5)])])

    assert caught.value.rule == "regions"
    assert "./inv offers" in caught.value.fix


def test_no_offer_at_all_is_not_the_policys_doing(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("version: 1\nregions: [EU-*]\n")
    gate = PolicyGate(
        LoadedJob(job=make_job(candidates=[PODS]), template=make_template()),
        {"LEASEHOLD_POLICY": str(tmp_path / "p.yaml")},
    )

    assert gate.sift([(PODS, [])]) == [(PODS, [])]


def test_a_job_that_stays_within_the_policy_loads_as_without_one(job: Path, write_policy: Any) -> None:
    write_policy("max_usd_per_job: 5\nmax_hours: 1\nclouds: [local, lambda]\ngpus: [A10]")

    gate = PolicyGate(load_job(job), {"LEASEHOLD_POLICY": str(job.parent / "rules.yaml")})

    assert gate.asked == load_job(job).job


def test_a_policy_that_cannot_be_found_is_an_error_and_no_freedom(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").symlink_to(tmp_path / "gone.yaml")

    for environ in ({}, {"LEASEHOLD_POLICY": "~no-such-user-here/policy.yaml"}):
        with pytest.raises(SpecError, match=r"the policy has 1 mistake|there is no policy file"):
            load_policy_in_force(environ, tmp_path)


def test_a_job_that_is_refused_fetches_nothing(job: Path, write_policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_policy("max_usd_per_job: 1")
    job.write_text(JOB.replace("input: input.jsonl", "input: s3://bucket/in.jsonl"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(PolicyError, match="max_usd_per_job"):
        draw_up_plan(job, run="r")
