"""Jobs without a file: what flags mean, which do not go together, and that no file is ever written over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import SpecError
from schemas.job import PROJECT_TEMPLATES, LoadedJob, load_job
from schemas.job_skeleton import VLLM_VERSION
from stacks.verbs.job_flags import JobFlags
from stacks.verbs.job_writing import choose_job, render_example

QWEN = "Qwen/Qwen2.5-7B-Instruct"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's with a batch in it, where the command is typed."""
    monkeypatch.chdir(tmp_path)
    write_batch(tmp_path / "x.jsonl", QWEN)
    return tmp_path


def write_batch(path: Path, model: str, url: str = "/v1/chat/completions") -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    path.write_text(json.dumps({"custom_id": "1", "method": "POST", "url": url, "body": body}) + "\n")


def make_flags(**fields: Any) -> JobFlags:
    """The flags of the issue's own example."""
    values: dict[str, Any] = {
        "model": QWEN, "gpu": "H100", "cloud": "runpod", "input": "x.jsonl", "max_usd": "5", "max_hours": "2",
    }  # fmt: skip
    return JobFlags(**(values | fields))


def choose(here: Path, **fields: Any) -> tuple[Path, LoadedJob]:
    path, is_made = choose_job([], make_flags(**fields), here)
    assert is_made
    return path, load_job(path)


def test_the_flags_become_a_job_in_the_folder_jobs_that_says_the_same(here: Path) -> None:
    path, loaded = choose(here, count=2, replicas=3, output="out", name="mine")
    job, spec = loaded.job, loaded.template.spec

    assert path == here / "jobs" / "mine.yaml"
    assert (job.name, job.input, job.output) == ("mine", str(here / "x.jsonl"), str(here / "out"))
    (candidate,) = job.machines.candidates
    assert (candidate.cloud, candidate.gpu, candidate.count, job.machines.replicas) == ("runpod", "H100", 2, 3)
    assert (job.limits.max_usd, job.limits.max_hours) == (5, 2)
    assert (spec.model_source.uri, spec.parallelism.tp, spec.accelerator.count) == (QWEN, 2, 2)
    assert loaded.template.model == QWEN
    assert loaded.warnings == ()


def test_paths_are_written_from_the_jobs_folder_so_that_both_can_move_together(here: Path) -> None:
    path, _ = choose(here)

    assert 'input: "../x.jsonl"' in path.read_text()
    assert str(here) not in path.read_text()


def test_a_schema_for_editors_stands_on_top_and_is_there(here: Path) -> None:
    path, _ = choose(here)

    schema = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert schema is not None and (path.parent / schema[1]).is_file()


def test_the_same_flags_again_are_the_same_file_and_others_a_new_one(here: Path) -> None:
    first, _ = choose(here)
    before = first.read_bytes()

    again, _ = choose(here)
    other, _ = choose(here, max_usd="7")

    assert again == first
    assert (first.name, other.name) == ("qwen2-5-7b-instruct.yaml", "qwen2-5-7b-instruct-2.yaml")
    assert first.read_bytes() == before


def test_a_file_of_the_users_own_is_never_written_over(here: Path) -> None:
    (here / "jobs").mkdir()
    (here / "jobs" / "mine.yaml").write_text("my work")

    path, _ = choose(here, name="mine")

    assert path.name == "mine-2.yaml"
    assert (here / "jobs" / "mine.yaml").read_text() == "my work"


def test_the_shipped_template_of_the_model_gives_its_settings_and_the_flags_the_gpu(here: Path) -> None:
    shipped = load_job_template("qwen2-5-7b.yaml")
    _, loaded = choose(here)

    assert loaded.template.spec.engine_args == shipped.engine_args
    assert loaded.template.spec.accelerator.type == "H100"


def load_job_template(name: str) -> Any:
    from schemas.template import load_template

    return load_template(PROJECT_TEMPLATES / name).spec


def test_a_gated_model_that_is_shipped_keeps_its_token(here: Path) -> None:
    write_batch(here / "x.jsonl", "meta-llama/Llama-3.1-8B-Instruct")
    _, loaded = choose(here, model="meta-llama/Llama-3.1-8B-Instruct")

    assert loaded.template.spec.model_source.auth_secret_ref == "env:HF_TOKEN"


def test_a_model_that_nobody_knows_is_served_by_vllm_as_the_templates_name_it(here: Path) -> None:
    write_batch(here / "x.jsonl", "acme/chat-9b")
    _, loaded = choose(here, model="acme/chat-9b")
    engine = loaded.template.spec.engine

    assert (engine.type, engine.version, engine.image) == ("vllm", VLLM_VERSION, f"vllm/vllm-openai:v{VLLM_VERSION}")
    assert load_job_template("qwen2-5-7b.yaml").engine.version == VLLM_VERSION


def test_the_lines_say_the_endpoint_and_the_name_that_is_served(here: Path) -> None:
    write_batch(here / "x.jsonl", "gpt-4o-mini", url="/v1/completions")
    _, loaded = choose(here)

    assert loaded.job.endpoint == "/v1/completions"
    assert loaded.template.model == "gpt-4o-mini"


def test_the_endpoint_flag_wins_over_the_lines(here: Path) -> None:
    assert choose(here, endpoint="/v1/completions")[1].job.endpoint == "/v1/completions"


@pytest.mark.parametrize("text", ["", "{not json\n", '{"body": 3}\n', "[]\n"])
def test_an_input_that_is_broken_is_left_to_the_check_of_the_input(here: Path, text: str) -> None:
    (here / "x.jsonl").write_text(text)

    assert choose(here)[1].job.endpoint == "/v1/chat/completions"


def test_the_local_cloud_serves_a_builtin_model_without_limits(here: Path) -> None:
    _, loaded = choose(here, model="builtin:tiny-chat", cloud="local", gpu="", max_usd="", max_hours="")

    assert loaded.template.spec.engine.type == "llamacpp"
    assert not loaded.job.costs_money
    assert loaded.template.model == QWEN, "the name that the lines ask for"


def test_a_gguf_file_is_named_as_a_whole(here: Path) -> None:
    (here / "own.gguf").write_bytes(b"GGUF")
    write_batch(here / "x.jsonl", "own")
    _, loaded = choose(here, model="own.gguf", cloud="local", gpu="", max_usd="", max_hours="")

    assert loaded.template.spec.model_source.uri == str(here / "own.gguf")
    assert loaded.template.model == "own"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no cloud": ({"cloud": ""}, "--model needs --cloud"),
    "no such cloud": ({"cloud": "aws"}, "no cloud 'aws'"),
    "no gpu": ({"gpu": ""}, "--cloud runpod needs --gpu"),
    "no such gpu": ({"gpu": "H1000"}, "no GPU is called 'H1000'"),
    "gpu on this computer": ({"cloud": "local"}, "--gpu does not go with --cloud local"),
    "count on this computer": ({"cloud": "local", "gpu": "", "count": 2}, "--count does not go with --cloud local"),
    "hub model on this computer": ({"cloud": "local", "gpu": ""}, "needs a .gguf file"),
    "no hub model": ({"model": "qwen"}, "'qwen' is no model of the hub"),
    "gguf on a cloud": ({"model": "own.gguf"}, "is no model of the hub"),
    "no money limit": ({"max_usd": ""}, "needs --max-usd"),
    "no limits": ({"max_usd": "", "max_hours": ""}, "needs --max-usd and --max-hours"),
    "money that is none": ({"max_usd": "lots"}, "--max-usd takes a number above 0, not 'lots'"),
    "no end": ({"max_hours": "inf"}, "--max-hours takes a number above 0"),
    "nothing": ({"max_usd": "0"}, "--max-usd takes a number above 0"),
    "negative": ({"replicas": -1}, "--replicas must be 1 or more"),
    "no input": ({"input": ""}, "--model needs --input"),
    "missing input": ({"input": "y.jsonl"}, "no such input file"),
    "endpoint": ({"endpoint": "/v2/x"}, "no endpoint '/v2/x'"),
    "name": ({"name": "My Job"}, "cannot be a job's name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_flags_that_are_wrong_are_told_with_a_fix_and_nothing_is_written(here: Path, case: str) -> None:
    fields, words = WRONG[case]

    with pytest.raises(SpecError) as caught:
        choose_job([], make_flags(**fields), here)

    assert words in caught.value.what
    assert caught.value.fix
    assert not (here / "jobs").exists()


def test_flags_and_a_file_do_not_go_together(here: Path) -> None:
    with pytest.raises(SpecError, match="--gpu does not go with a job file") as caught:
        choose_job(["a.yaml"], JobFlags(gpu="H100"), here)

    assert "a.yaml" in caught.value.fix


def test_a_file_alone_is_the_job(here: Path) -> None:
    assert choose_job(["a.yaml"], JobFlags(), here) == (Path("a.yaml"), False)


@pytest.mark.parametrize(
    ("flags", "words"), [(JobFlags(), "there is no job"), (JobFlags(gpu="H100"), "--gpu needs --model")]
)
def test_neither_file_nor_model_says_what_to_write(here: Path, flags: JobFlags, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        choose_job([], flags, here)

    assert "--model" in caught.value.fix and "--max-usd" in caught.value.fix


def test_a_folder_that_cannot_be_written_is_told(here: Path) -> None:
    (here / "jobs").write_text("no folder")

    with pytest.raises(SpecError, match="the job cannot be written"):
        choose_job([], make_flags(), here)


@pytest.mark.parametrize("name", sorted(path.stem for path in PROJECT_TEMPLATES.glob("*.yaml")))
def test_an_example_of_every_shipped_template_is_a_right_job(here: Path, name: str) -> None:
    (here / "job.yaml").write_text(render_example(template=name, flags=JobFlags(input="x.jsonl")))

    loaded = load_job(here / "job.yaml")

    schema = re.match(r"# yaml-language-server: \$schema=(\S+)\n", (here / "job.yaml").read_text())
    assert schema is not None and (here / schema[1]).is_file()
    assert loaded.template.name == name
    assert "\n# Both are required" in (here / "job.yaml").read_text()


@pytest.mark.parametrize("model", [QWEN, "acme/chat-9b", "builtin:tiny-chat"])
def test_an_example_of_a_model_is_a_right_job(here: Path, model: str) -> None:
    text = render_example(template="", flags=JobFlags(model=model, name="mine", input="x.jsonl"))
    (here / "job.yaml").write_text(text)

    loaded = load_job(here / "job.yaml")

    assert (loaded.job.name, loaded.job.input) == ("mine", str(here / "x.jsonl"))
    assert loaded.template.spec.model_source.uri == model


@pytest.mark.parametrize(
    ("template", "flags", "words"),
    [
        ("qwen2-5-7b", JobFlags(model=QWEN), "exclude each other"),
        ("nobody", JobFlags(), "nobody"),
        ("bge-m3", JobFlags(endpoint="/v1/completions"), "does not serve /v1/completions"),
        ("bge-m3", JobFlags(cloud="moon"), "no cloud 'moon'"),
        ("bge-m3", JobFlags(cloud="local"), "needs a GPU"),
        ("bge-m3", JobFlags(gpu="H1000"), "no GPU is called"),
        ("tiny-chat", JobFlags(gpu="H100"), "runs on this computer"),
        ("tiny-chat", JobFlags(cloud="lambda"), "runs on this computer"),
        ("", JobFlags(name="My: job"), "cannot be a job's name"),
        ("", JobFlags(cloud="lambda"), "--cloud needs --template or --model"),
        ("", JobFlags(endpoint="/v1/x"), "no endpoint '/v1/x'"),
    ],
)
def test_an_example_that_cannot_be_is_refused(template: str, flags: JobFlags, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        render_example(template=template, flags=flags)

    assert words in str(caught.value)


def test_addresses_in_s3_are_written_as_they_are(here: Path) -> None:
    _, loaded = choose(here, input="s3://bucket/in.jsonl", output="s3://bucket/out/")

    assert (loaded.job.input, loaded.job.output) == ("s3://bucket/in.jsonl", "s3://bucket/out/")
