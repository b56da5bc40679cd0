"""The template and the two requests of AIBrix's page on cloud resources, as they stand there, through a whole run."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.journeys.emulated_clouds import EmulatedClouds, open_emulated_clouds
from tests.journeys.workshop import Workshop
from tests.schemas.test_template import AIBRIX

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

MODEL = "Qwen/Qwen2.5-7B-Instruct"
LINES = [
    {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 128},
    }
    for number, text in ((1, "Explain AIBrix in one paragraph."), (2, "What is batch inference?"))
]


@pytest.fixture
def clouds(workshop: Workshop) -> Iterator[EmulatedClouds]:
    with open_emulated_clouds(workshop) as made:
        yield made


def test_the_template_of_the_page_runs_on_a_gpu_that_is_connected_as_it_says(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    workshop = clouds.workshop
    job = clouds.write_job("page", [{"cloud": "runpod"}, {"cloud": "lambda"}], template="qwen2-5-7b-cloud@v1.0.0")
    (workshop.folder / "templates").mkdir()
    (workshop.folder / "templates" / "page.json").write_text(json.dumps(AIBRIX))
    (workshop.folder / "page.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))

    checked = workshop.inv("validate", str(job))
    done = clouds.run(job)

    assert checked.returncode == 0, checked.stderr
    assert "vllm/vllm-openai:latest` may be another engine tomorrow" in checked.stderr
    assert done.returncode == 0, done.stderr
    answers = workshop.lines("page")
    assert sorted(line["custom_id"] for line in answers) == ["request-1", "request-2"]
    assert {line["response"]["body"]["model"] for line in answers} == {MODEL}
    plan = json.loads((workshop.run_dir("page") / "plan.json").read_bytes())
    # The page's template asks for PCIe: no H100 on an SXM or NVL board is tried, on neither cloud.
    assert {choice["offer"]["gpu"] for choice in plan["choices"]} == {"H100-PCIE"}
    clouds.wait_until_nothing_is_left()
