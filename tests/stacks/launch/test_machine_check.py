"""What a launch would refuse is found with its place, also where no check of the files has seen it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from schemas.errors import SpecError
from schemas.job import LoadedJob
from schemas.template import EngineSpec
from stacks.launch.launch import list_launch_refusals
from stacks.launch.machine_check import find_machine_problems
from tests.schemas.spec_files import JOB, load


def change(loaded: LoadedJob, **spec: object) -> LoadedJob:
    """The same job with something in its template that its file's check would have refused."""
    changed = msgspec.structs.replace(loaded.template.spec, **spec)
    return msgspec.structs.replace(loaded, template=msgspec.structs.replace(loaded.template, spec=changed))


def places(loaded: LoadedJob) -> list[tuple[str, int, str]]:
    return [(Path(each.file).name, each.line, each.message) for each in find_machine_problems(loaded)]


def test_a_job_in_order_has_no_problem(tmp_path: Path) -> None:
    assert find_machine_problems(load(tmp_path)) == []


def test_an_argument_that_is_ours_is_told_at_its_line_of_the_template(tmp_path: Path) -> None:
    engine = EngineSpec(type="vllm", serve_args=("--api-key=x",))

    assert places(change(load(tmp_path), engine=engine)) == [("qwen.yaml", 8, "--api-key is set by Leasehold")]


def test_an_option_of_the_template_and_one_of_the_job_are_told_each_in_its_file(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    sglang = EngineSpec(type="sglang")
    from_template = change(loaded, engine=sglang, engine_args={"swap_space": 4})
    overridden = msgspec.structs.replace(
        from_template, job=msgspec.structs.replace(loaded.job, overrides={"swap_space": 4})
    )

    assert places(from_template) == [("qwen.yaml", 19, "sglang has no swap space")]
    assert places(overridden) == [("job.yaml", 8, "sglang has no swap space")]


def test_an_inline_deployment_is_told_in_the_jobs_file(tmp_path: Path) -> None:
    text = JOB.replace(
        "template: qwen@v1.0.0\n",
        "deploy:\n  engine: {type: vllm}\n  model_source: {type: huggingface, uri: a/b}\n"
        "  accelerator: {type: H100}\n  supported_endpoints: [/v1/chat/completions]\n",
    )

    assert places(change(load(tmp_path, text), engine_args={"port": 1})) == [("job.yaml", 6, "it is set by Leasehold")]


@pytest.mark.parametrize("cloud", ["runpod", "lambda", "local"])
def test_the_launch_refuses_nothing_of_what_the_checks_let_through(tmp_path: Path, cloud: str) -> None:
    try:
        template = load(tmp_path).template
    except SpecError as error:
        pytest.fail(str(error))

    assert list_launch_refusals(template, cloud) == []
