"""A policy file: loaded as a record, its mistakes told at their place, and the schema behind it."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import jsonschema
import msgspec
import pytest

from schemas.errors import Problem, SpecError
from schemas.job import CloudName
from schemas.notify import NotifyTarget, Occasion, TargetType
from schemas.policy import ImageRules, Policy, load_policy
from schemas.spec_schema import list_properties, load_schema, render_schema

WHOLE = """\
version: 1
max_usd_per_job: 50
max_usd_per_hour: 20.5
max_hours: 12
clouds: [local, runpod]
regions: [US-*]
gpus: [H100]
images:
  allowed: [vllm/vllm-openai]
  digest_required: true
required_metadata: [team]
trust_remote_code: false
notify:
  - {type: webhook, url: "https://hooks.example.org/x", secret: "file:secret"}
  - {type: slack, url: env:SLACK, on: [failed]}
  - {type: github}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def find_problems(folder: Path, text: str) -> tuple[Problem, ...]:
    try:
        load_policy(write(folder, text))
    except SpecError as error:
        return error.problems
    return ()


def test_a_policy_is_loaded_with_every_rule(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, WHOLE))

    assert policy == Policy(
        max_usd_per_job=50,
        max_usd_per_hour=20.5,
        max_hours=12,
        clouds=("local", "runpod"),
        regions=("US-*",),
        gpus=("H100",),
        images=ImageRules(allowed=("vllm/vllm-openai",), digest_required=True),
        required_metadata=("team",),
        trust_remote_code=False,
        notify=(
            NotifyTarget(type="webhook", url="https://hooks.example.org/x", secret=f"file:{tmp_path.resolve()}/secret"),
            NotifyTarget(type="slack", url="env:SLACK", on=("failed",)),
            NotifyTarget(type="github"),
        ),
        source=str((tmp_path / "policy.yaml").resolve()),
    )
    assert len(policy.rules) == 10


def test_what_is_left_out_forbids_nothing(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, "version: 1\n"))

    assert policy == Policy(source=policy.source)
    assert policy.rules == ()


# (what is broken, by what, line:column, words of the message and the fix)
MISTAKES = [
    ("max_hours: 12", "max_hour: 12", "4:1", ["unknown key `max_hour`", "Did you mean `max_hours`?"]),
    ("max_hours: 12", "max_hours: twelve", "4:12", ["expected a number"]),
    ("max_hours: 12", "max_hours: 0", "4:12", ["must be more than 0"]),
    ("runpod]", "runpot]", "5:17", ["Did you mean runpod?"]),
    ("[US-*]", "US-KS-2", "6:10", ["Write a list: `regions: [US-KS-2]`"]),
    ("[US-*]", "[]", "6:10", ["`regions` is empty"]),
    ("digest_required: true", "digest_require: true", "10:3", ["Did you mean `digest_required`?"]),
    ("digest_required: true", "digest_required: yes", "10:20", ["Write true."]),
    ("[vllm/vllm-openai]", '["vllm openai"]', "9:13", ["does not fit", "vllm/vllm-openai"]),
    ("version: 1", "version: 2", "1:10", ["expected 1"]),
    ("https://hooks", "ftp://hooks", "14:26", ["does not fit", "https address"]),
    ("https://hooks", "http://hooks", "14:26", ["over http anybody", "Use https:"]),
    ("file:secret", "hunter2", "14:65", ["what is written does not fit", "never the secret itself"]),
    ("url: env:SLACK", "url: https://hooks.slack.com/services/x", "15:24", ["are secrets", "env:SLACK_WEBHOOK_URL"]),
    ("url: env:SLACK, ", "", "15:5", ["`url` is missing for slack"]),
    ("type: github", "type: github, url: env:X", "16:20", ["`url` has no effect on github"]),
    ("[failed]", "[faild]", "15:40", ["Did you mean failed?"]),
]


@pytest.mark.parametrize(("old", "new", "place", "words"), MISTAKES, ids=[each[1][:30] for each in MISTAKES])
def test_a_mistake_is_told_once_at_its_place_with_the_fix(
    tmp_path: Path, old: str, new: str, place: str, words: list[str]
) -> None:
    assert WHOLE.count(old) == 1

    problems = find_problems(tmp_path, WHOLE.replace(old, new))

    assert [f"{each.line}:{each.column}" for each in problems] == [place], problems
    text = f"{problems[0].message} {problems[0].fix}"
    assert [word for word in words if word not in text] == [], text
    assert "hunter2" not in text


def test_an_empty_file_is_no_policy_that_allows_everything(tmp_path: Path) -> None:
    assert find_problems(tmp_path, "")


def test_record_and_schema_have_the_same_fields_and_defaults() -> None:
    properties = dict(list_properties(load_schema("policy")))
    fields = {field.name: field.default for field in msgspec.structs.fields(Policy)}

    assert {path[0] for path in properties} == set(fields) - {"source"}
    assert {path[1] for path in properties if path[0] == "images" and len(path) > 1} == set(
        ImageRules.__struct_fields__
    )
    assert {path[1] for path in properties if path[0] == "notify" and len(path) > 1} == set(
        NotifyTarget.__struct_fields__
    )
    assert properties[("trust_remote_code",)]["default"] is fields["trust_remote_code"]
    assert properties[("clouds",)]["items"]["enum"] == list(typing.get_args(CloudName))
    assert properties[("notify", "type")]["enum"] == list(typing.get_args(TargetType))
    assert properties[("notify", "on")]["items"]["enum"] == list(typing.get_args(Occasion))


def test_every_property_is_described_with_examples_that_fit() -> None:
    schema = load_schema("policy")
    jsonschema.Draft202012Validator.check_schema(dict(schema))
    for path, each in list_properties(schema):
        assert each.get("description") and each.get("examples"), path
        judge = jsonschema.Draft202012Validator({**each, "$defs": schema["$defs"]})
        assert all(judge.is_valid(example) for example in each["examples"]), path
        assert ("pattern" in each) == ("patternErrorMessage" in each), path


@pytest.mark.parametrize("name", ["job", "policy"])
def test_the_printed_schema_needs_no_second_file(name: typing.Literal["job", "policy"]) -> None:
    text = render_schema(name)

    assert ".schema.json#" not in text
    assert "notify" in json.loads(text)["properties"]
