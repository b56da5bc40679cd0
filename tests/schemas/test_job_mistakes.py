from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import SpecError
from schemas.job import load_job
from tests.schemas.spec_files import JOB, TEMPLATE, break_text, find_job_problems, load, write_job

# (what is broken, by what, line:column, words of the message and the fix)
MISTAKES = [
    ("version: 1\n", "version: 2\n", "1:10", ["`version`: expected 1", "the number 2"]),
    ("version: 1\n", 'version: "1"\n', "1:10", ["a whole number", 'the text "1"', "Remove the quotes: `version: 1`"]),
    ("version: 1\n", "", "1:1", ["`version` is missing", "Add `version: 1`"]),
    ("version: 1\n", "version:\n", "1:1", ["`version` has no value", "`version: 1`"]),
    ("name: tickets", "name: My Job", "2:7", ["My Job", "1 to 40 lower-case letters"]),
    ("name: tickets", "name: " + "a" * 41, "2:7", ["does not fit", "1 to 40"]),
    ("name: tickets", "name: 1e3", "2:7", ["expected text", "the number 1e3"]),
    ("name: tickets", "name: true", "2:7", ["expected text, found true", '`name: "true"`']),
    ("name: tickets", "nmae: tickets", "2:1", ["unknown key `nmae`", "Did you mean `name`?"]),
    ("name: tickets\n", "name: tickets\nname: again\n", "3:1", ["`name` is given twice", "line 2"]),
    (
        "name: tickets\n",
        "name: tickets\ncolour: red\n",
        "3:1",
        ["unknown key `colour`", "Allowed here:", "and version"],
    ),
    ("input: data/tickets.jsonl\n", "", "1:1", ["`input` is missing", "Add `input: data/tickets.jsonl`"]),
    ("data/tickets.jsonl", "data/other.jsonl", "3:8", ["no such file", "counts from the job's folder"]),
    ("data/tickets.jsonl", "data", "3:8", ["is a folder, not a file"]),
    ("data/tickets.jsonl", '"a\\0b"', "3:8", ["does not fit", "path of a file"]),
    ("data/tickets.jsonl", "~nobody-of-this-name/x", "3:8", ["cannot be used"]),
    ("data/tickets.jsonl", "x" * 300, "3:8", ["cannot be used"]),
    ("data/tickets.jsonl", "gs://bucket/in.jsonl", "3:8", ["gs:// addresses are not supported yet"]),
    ("data/tickets.jsonl", "s3://bucket", "3:8", ["does not fit", "s3://bucket/key"]),
    ("data/tickets.jsonl", "[a, b]", "3:8", ["`input`: expected text, found a list"]),
    ("output: results/", "output: s3://bucket/", "4:9", ["does not fit", "s3://bucket/prefix/"]),
    ("output: results/", "output: gs://b/c", "4:9", ["gs:// addresses are not supported yet", "path of a folder"]),
    ("output: results/", "output: data/tickets.jsonl", "4:9", ["is a file, not a folder"]),
    ("endpoint: /v1/chat/completions", "endpoint: /v1/chat/completion", "5:11", ["Did you mean /v1/chat/completions?"]),
    (
        "endpoint: /v1/chat/completions",
        "endpoint: /v1/responses",
        "5:11",
        ["`endpoint: /v1/responses` is not supported"],
    ),
    ("endpoint: /v1/chat/completions", "endpoint: /v1/embeddings", "5:11", ["`qwen` does not answer /v1/embeddings"]),
    ("endpoint: /v1/chat/completions", "endpoint:", "5:1", ["`endpoint` has no value"]),
    ("template: qwen@v1.0.0\n", "", "1:1", ["`template` or `deploy` is missing"]),
    ("template: qwen@v1.0.0", "tempalte: qwen@v1.0.0", "6:1", ["unknown key `tempalte`", "Did you mean `template`?"]),
    ("qwen@v1.0.0", "qwem@v1.0.0", "6:11", ["there is no template `qwem`", "Did you mean `qwen`?"]),
    ("qwen@v1.0.0", "qwen@v2.0.0", "6:11", ["no version v2.0.0", "Did you mean qwen@v1.0.0?"]),
    ("qwen@v1.0.0", "qwen@1.0.0", "6:11", ["no version 1.0.0", "Did you mean qwen@v1.0.0?"]),
    ("qwen@v1.0.0", "qwen@latest", "6:11", ["does not fit", "name@version such as"]),
    ("max_model_len: 4096", "max_model_len: long", "8:32", ["does not fit", "whole number of at least 1"]),
    ("max_model_len: 4096", "max_model_len: 0", "8:32", ["must be at least 1, found the number 0"]),
    ("max_model_len: 4096", "port: 80", "8:17", ["`port` is set by Leasehold"]),
    ("max_model_len: 4096", "trust_remote_code: true", "8:17", ["serve_args have `--trust-remote-code`"]),
    ("max_model_len: 4096", "tensor_parallel_size: 2", "8:17", ["the template's parallelism.tp"]),
    ("max_model_len: 4096", "--max-model-len: 1", "8:17", ["does not fit here", "without leading dashes"]),
    ("max_model_len: 4096", "speculative_model: a/b", "8:17", ["needs `num_speculative_tokens` beside it"]),
    ("  engine_args: {max", "  model_source: {max", "8:3", ["unknown key `model_source`", "Allowed here: engine_args"]),
    ("completion_window: 24h", "completion_window: 24", "9:20", ["expected text", "with s, m, h or d"]),
    ("completion_window: 24h", "completion_window: 1.5h", "9:20", ["does not fit", "such as 24h or 90m"]),
    ("completion_window: 24h", "completion_window: 31d", "9:20", ["at most 30 days"]),
    ("replicas: 2\n", "replicas: two\n", "11:13", ["expected a whole number", 'the text "two"']),
    ("replicas: 2\n", "replicas: 2.0\n", "11:13", ["expected a whole number", "the number 2.0"]),
    ("replicas: 2\n", "replicas: 0\n", "11:13", ["at least 1"]),
    ("replicas: 2\n", "replicas: 257\n", "11:13", ["at most 256"]),
    ("  replicas: 2\n", "  replica: 2\n", "11:3", ["Did you mean `replicas`?"]),
    ("min_replicas: 1", "min_replicas: 3", "12:17", ["`min_replicas` is 3, but there are only 2"]),
    ("cloud: lambda", "cloud: lamda", "17:14", ["expected one of local, runpod or lambda", "Did you mean lambda?"]),
    ("cloud: lambda", "cloud: ssh", "17:14", ["`cloud: ssh` is not supported yet"]),
    ("- cloud: lambda", "- gpu: A10", "17:7", ["`cloud` is missing in `machines.candidates[1]`"]),
    ("- cloud: lambda", "- lambda", "17:7", ["expected keys and values"]),
    ("- cloud: lambda", "- {cloud: lambda, tier: secure}", "17:23", ["`tier` has no effect on lambda"]),
    ("- cloud: lambda", "- {cloud: lambda, network_volume: x}", "17:23", ["no effect on lambda", "it is for runpod"]),
    ("- cloud: lambda", "- {cloud: local, gpu: H100}", "17:22", ["a GPU on the local cloud is not supported yet"]),
    ("- cloud: lambda", "- {cloud: local, disk_gb: 50}", "17:22", ["`disk_gb` has no effect on local"]),
    ("- cloud: lambda", "- {cloud: lambda, regions: us-west-1}", "17:32", ["Write a list: `regions: [us-west-1]`"]),
    ("- cloud: lambda", "- {cloud: lambda, regions: []}", "17:32", ["`regions` is empty"]),
    ("- cloud: lambda", "- {cloud: lambda, regions: [a, b, a]}", "17:39", ['"a" is given twice']),
    ("- cloud: lambda", "- {cloud: lambda, count: 0}", "17:30", ["`count` must be at least 1"]),
    ("- cloud: lambda", "- {cloud: lambda, max_usd_per_hour: 0}", "17:41", ["must be more than 0"]),
    ("gpu: H100", "gpu: H100\n      any: {min_gb: 80}", "16:7", ["`gpu` and `any` exclude each other"]),
    ("gpu: H100", "any: {}", "15:7", ["`min_gb` is missing in `machines.candidates[0].any`"]),
    ("gpu: H100", "gpus: H100", "15:7", ["Did you mean `gpu`?"]),
    ("tier: secure", "tier: spot", "16:13", ["`tier: spot` is not supported yet"]),
    ("tier: secure", "tier: community\n      network_volume: x", "17:23", ["needs RunPod's secure tier"]),
    ("tier: secure", "min_cuda: newest", "16:17", ["does not fit", 'such as "12.8"']),
    ("rank: order", "rank: cheapest", "18:9", ["expected order or price", "Write order or price"]),
    ("  max_usd: 25\n", "", "19:1", ["`limits.max_usd` is missing, and runpod costs money", "`max_usd: 25`"]),
    ("  max_hours: 6\n", "", "19:1", ["`limits.max_hours` is missing"]),
    ("  max_usd: 25\n", "  max_us: 25\n", "20:3", ["unknown key `max_us`", "Did you mean `max_usd`?"]),
    ("limits:\n", "limit:\n", "19:1", ["unknown key `limit`", "Did you mean `limits`?"]),
    ("max_usd: 25", "max_usd: 25 USD", "20:12", ["expected a number", "25 USD"]),
    ("max_usd: 25", "max_usd: .inf", "20:12", ["infinity"]),
    ("max_hours: 6", "max_hours: 1000", "21:14", ["must be at most 720"]),
    ("max_concurrency: auto", "max_concurrency: 0", "23:20", ["at least 1"]),
    ("max_concurrency: auto", "max_concurrency: lots", "23:20", ["Write auto or a whole number"]),
    ("max_concurrency: auto", 'max_concurrency: "64"', "23:20", ["Remove the quotes: `max_concurrency: 64`"]),
    ("max_concurrency: auto", "max_concurrency: 1.5", "23:20", ["a whole number or a certain text"]),
    ("ordered: false", "ordered: no", "24:12", ["expected true or false", 'the text "no"', "Write false"]),
    ("ordered: false", "order: random", "24:10", ["expected input or prefix"]),
    ("team: search", "team: 5", "26:9", ["expected text, found the number 5", '`team: "5"`']),
    ("team: search", "team:", "26:3", ["`team` has no value"]),
    ("team: search", "team: " + "x" * 513, "26:9", ["longer than 512 characters, found 513"]),
    ("team: search", "x" * 65 + ": a", "26:3", ["does not fit here", "1 to 64 characters"]),
    ("  team: search", "  " + "\n  ".join(f"k{n}: v" for n in range(17)), "26:3", ["at most 16 keys, found 17"]),
    (
        "metadata:\n  team: search\n",
        "max_retries: 3\n",
        "25:1",
        ["does not belong here", "It belongs under `dispatch`"],
    ),
    ("metadata:\n  team: search\n", "boot_usd: 3\n", "25:1", ["It belongs under `limits`"]),
    (
        "dispatch:\n",
        "dispatch:\n  name: x\n",
        "23:3",
        ["`name` does not belong here", "at the top, without indentation"],
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "words"), MISTAKES, ids=[f"{new[:30]!r}" for _, new, _, _ in MISTAKES])
def test_a_mistake_in_a_job_is_told_at_its_place_with_the_fix(
    tmp_path: Path, old: str, new: str, place: str, words: list[str]
) -> None:
    problems = find_job_problems(tmp_path, break_text(JOB, old, new))

    assert problems, "the mistake was not seen"
    first = problems[0]
    text = f"{first.message} {first.fix}"
    assert f"{first.line}:{first.column}" == place
    assert [word for word in words if word not in text] == [], text
    assert first.fix


@pytest.mark.parametrize(("old", "new", "place", "words"), MISTAKES, ids=[f"{new[:30]!r}" for _, new, _, _ in MISTAKES])
def test_a_single_mistake_gives_a_single_problem(
    tmp_path: Path, old: str, new: str, place: str, words: list[str]
) -> None:
    problems = find_job_problems(tmp_path, break_text(JOB, old, new))

    assert len(problems) == 1, "\n".join(map(str, problems))


def test_the_right_job_has_no_problem(tmp_path: Path) -> None:
    assert find_job_problems(tmp_path) == ()


def test_all_mistakes_of_job_and_template_come_at_once_sorted_by_line(tmp_path: Path) -> None:
    job = JOB.replace("replicas: 2\n", "replicas: two\n").replace("rank: order", "rank: best").replace("25", "-1")
    template = TEMPLATE.replace("tp: 1", "tp: 3").replace("weight: bf16", "weight: bf15")

    problems = find_job_problems(tmp_path, job, template=template)

    places = [(Path(problem.file).name, problem.line) for problem in problems]
    assert places == [("job.yaml", 11), ("job.yaml", 18), ("job.yaml", 20), ("qwen.yaml", 18), ("qwen.yaml", 23)]


def test_the_error_counts_and_shows_every_problem(tmp_path: Path) -> None:
    job = write_job(tmp_path, JOB.replace("rank: order", "rank: best").replace("max_hours: 6", "max_hours: -6"))

    with pytest.raises(SpecError) as raised:
        load_job(job)

    assert raised.value.exit_code == 2
    assert "the job has 2 mistakes" in str(raised.value)
    assert f"{job}:18:9" in str(raised.value)
    assert f"{job}:21:14" in str(raised.value)


def test_template_and_deploy_exclude_each_other(tmp_path: Path) -> None:
    spec = TEMPLATE.partition("spec:\n")[2]
    job = break_text(JOB, "template: qwen@v1.0.0\n", f"template: qwen\ndeploy:\n{spec}")

    problems = find_job_problems(tmp_path, job)

    assert [(problem.line, problem.message) for problem in problems] == [
        (7, "`template` and `deploy` exclude each other")
    ]


def test_a_mistake_in_an_inline_spec_is_told_in_the_jobs_file(tmp_path: Path) -> None:
    spec = TEMPLATE.partition("spec:\n")[2].replace("tp: 1", "tp: 2")
    job = break_text(JOB, "template: qwen@v1.0.0\n", f"deploy:\n{spec}")

    problems = find_job_problems(tmp_path, job)

    assert [(Path(problem.file).name, problem.line) for problem in problems] == [("job.yaml", 20)]
    assert "tp x pp x dp x ep is 2, but accelerator.count is 1" in problems[0].message


@pytest.mark.parametrize("candidate", ["{cloud: local}", "{cloud: local, price_usd_per_hour: 0}"])
def test_a_job_that_costs_nothing_needs_no_limits(tmp_path: Path, candidate: str) -> None:
    job = JOB.partition("machines:")[0] + f"machines:\n  candidates: [{candidate}]\n"

    assert find_job_problems(tmp_path, job) == ()


def test_a_price_on_the_local_cloud_makes_both_limits_required(tmp_path: Path) -> None:
    job = JOB.partition("machines:")[0] + "machines:\n  candidates: [{cloud: local, price_usd_per_hour: 0.5}]\n"

    problems = find_job_problems(tmp_path, job)

    assert [problem.message for problem in problems] == [
        "`limits.max_usd` is missing, and the price you set costs money",
        "`limits.max_hours` is missing, and the price you set costs money",
    ]


def test_a_candidate_with_too_few_gpus_is_refused_and_with_too_many_warned_about(tmp_path: Path) -> None:
    template = TEMPLATE.replace("count: 1", "count: 4").replace("tp: 1", "tp: 4")
    few = break_text(JOB, "cloud: lambda", "{cloud: lambda, count: 2}")
    many = break_text(JOB, "cloud: lambda", "{cloud: lambda, count: 8}")

    problems = find_job_problems(tmp_path, few, template=template)
    warnings = load(tmp_path, many, template=template).warnings

    assert [(each.line, each.message) for each in problems] == [
        (17, "template `qwen` spreads the model over 4 GPUs, this candidate has 2")
    ]
    assert [each.message for each in warnings] == ["4 of 8 GPUs would be paid for and not used"]


def test_a_template_without_gpu_needs_one_from_every_paid_candidate(tmp_path: Path) -> None:
    template = TEMPLATE.replace("type: H100", "type: cpu").replace("    vram_gb: 24\n", "")

    problems = find_job_problems(tmp_path, template=template)

    assert [(each.line, each.message) for each in problems] == [
        (17, "neither this candidate nor template `qwen` names a GPU")
    ]


def test_llamacpp_on_a_paid_cloud_is_not_supported_yet(tmp_path: Path) -> None:
    job = break_text(JOB, "template: qwen@v1.0.0", "template: tiny-chat").replace("max_model_len: 4096", "")

    with pytest.raises(SpecError) as raised:
        load_job(write_job(tmp_path, job))

    messages = [(each.line, each.message) for each in raised.value.problems]
    assert messages == [
        (14, "llamacpp on runpod is not supported yet"),
        (17, "llamacpp on lambda is not supported yet"),
    ]


def test_a_draft_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    job = write_job(tmp_path, template=TEMPLATE.replace("status: active", "status: draft"))

    with pytest.raises(SpecError, match="is a draft"):
        load_job(job)
    asked_for = load_job(job, allow_draft=True)

    assert [warning.code for warning in asked_for.warnings] == ["draft_template"]


def test_a_deprecated_template_and_a_floating_image_are_warned_about(tmp_path: Path) -> None:
    template = TEMPLATE.replace("status: active", "status: deprecated").replace(":v0.32.0", ":latest")

    warnings = load(tmp_path, template=template).warnings

    assert [(Path(each.file).name, each.line, each.code) for each in warnings] == [
        ("job.yaml", 6, "deprecated_template"),
        ("qwen.yaml", 7, "image_latest"),
    ]


def test_a_candidate_given_twice_is_warned_about(tmp_path: Path) -> None:
    warnings = load(
        tmp_path, break_text(JOB, "    - cloud: lambda", "    - cloud: lambda\n    - cloud: lambda")
    ).warnings

    assert [(each.line, each.message) for each in warnings] == [(18, "this candidate is the same as number 2")]


def test_a_broken_template_file_of_the_right_name_is_shown(tmp_path: Path) -> None:
    problems = find_job_problems(tmp_path, template=TEMPLATE.replace("status: active", "status: [active"))

    assert [(Path(each.file).name, each.line, each.code) for each in problems] == [("qwen.yaml", 4, "yaml_syntax")]
