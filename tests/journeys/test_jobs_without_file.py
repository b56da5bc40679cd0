"""Jobs without a file, plans that know the price, and receipts that the next plan learns from: through `./inv`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.emulated_clouds import EmulatedClouds
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

QWEN = "Qwen/Qwen2.5-7B-Instruct"
WITHOUT_FILE = ["--model", QWEN, "--gpu", "H100", "--cloud", "runpod", "--input", "x.jsonl"]
LIMITS = ["--max-usd", "5", "--max-hours", "2"]
# What AIBrix's page makes a model deployment template of, its strings for numbers included.
AIBRIX_SPEC: dict[str, Any] = {
    "engine": {
        "type": "vllm",
        "version": "latest",
        "image": "vllm/vllm-openai:latest",
        "invocation": "http_server",
        "serve_args": ["--trust-remote-code"],
        "health_endpoint": "/health",
        "ready_timeout_seconds": 1800,
        "metrics_endpoint": "/metrics",
    },
    "model_source": {"type": "huggingface", "uri": QWEN},
    "accelerator": {"type": "H100", "count": 1, "vram_gb": 80, "interconnect": "pcie"},
    "parallelism": {"tp": 1, "pp": 1, "dp": 1, "ep": 1},
    "engine_args": {"gpu_memory_utilization": "0.90"},
    "quantization": {"weight": "fp16", "kv_cache": "auto"},
    "supported_endpoints": ["/v1/chat/completions"],
    "deployment_mode": "dedicated",
}


@pytest.fixture
def clouds(workshop: Workshop) -> Iterator[EmulatedClouds]:
    made = EmulatedClouds(workshop)
    yield made
    made.close()
    assert made.machine_processes() == []


def write_aibrix_input(path: Path) -> None:
    questions = ["Explain what this job does in one paragraph.", "What is batch inference?"]
    lines = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": QWEN, "messages": [{"role": "user", "content": question}], "max_tokens": 128},
        }
        for number, question in enumerate(questions, start=1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_aibrix_job(folder: Path, **limits: float) -> Path:
    """The page's example: its template and its two lines, on either of its clouds."""
    write_aibrix_input(folder / "x.jsonl")
    (folder / "templates").mkdir(exist_ok=True)
    template = {"name": "qwen2-5-7b-cloud", "version": "v1.0.0", "status": "active", "spec": AIBRIX_SPEC}
    (folder / "templates" / "qwen.json").write_text(json.dumps(template))
    job = {
        "version": 1,
        "name": "qwen-cloud-batch",
        "input": "x.jsonl",
        "endpoint": "/v1/chat/completions",
        "template": "qwen2-5-7b-cloud@v1.0.0",
        "completion_window": "24h",
        "machines": {"replicas": 2, "rank": "price", "candidates": [{"cloud": "lambda"}, {"cloud": "runpod"}]},
        "limits": {"max_usd": 5, "max_hours": 2, **limits},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def plan(workshop: Workshop, job: Path, code: int = 0) -> Any:
    done = workshop.inv("plan", str(job), "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_the_aibrix_example_is_planned_cheapest_first_to_the_cent_and_refused_just_beyond_the_limit(
    clouds: EmulatedClouds,
) -> None:
    clouds.open("runpod", "lambda")
    workshop = clouds.workshop

    made = plan(workshop, write_aibrix_job(workshop.folder))

    offers = [choice["offer"] for choice in made["choices"]]
    prices = [offer["price_usd_per_hour"] for offer in offers if offer["available"]]
    assert prices == sorted(prices) and {offer["cloud"] for offer in offers} == {"runpod", "lambda"}
    assert all(offer["memory_gb"] >= 80 and "PCIE" in offer["gpu"] for offer in offers)
    listed = json.loads(workshop.inv("offers", "--gpu", "H100-PCIE", "--json").stdout)
    assert prices[0] == min(offer["price_usd_per_hour"] for offer in listed if offer["available"])
    estimate = made["estimate"]
    for end in ("low", "likely", "high"):
        exact = estimate[f"{end}_hours"] * 2 * prices[0]
        assert estimate[f"{end}_usd"] == pytest.approx(math.floor(exact * 100 + 0.5) / 100)
    limits = {each["limit"] for each in made["left_out"]}
    assert limits == {"interconnect pcie"}

    assert plan(workshop, write_aibrix_job(workshop.folder, max_usd=estimate["low_usd"]))["choices"]
    refusal = plan(workshop, write_aibrix_job(workshop.folder, max_usd=round(estimate["low_usd"] - 0.01, 2)), code=5)
    assert f"even the low estimate, {estimate['low_usd']:.2f} USD" in refusal
    assert not clouds.machines() and not (workshop.home / "runs").exists()


def test_a_run_without_a_file_keeps_its_job_and_has_a_receipt(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    workshop = clouds.workshop
    write_aibrix_input(workshop.folder / "x.jsonl")

    done = workshop.inv("run", *WITHOUT_FILE, *LIMITS, "--output", "out", "--run", "one")

    assert done.returncode == 0, done.stderr
    assert "this job is in jobs/qwen2-5-7b-instruct.yaml" in done.stderr
    assert "nobody to ask: going on within 5.00 USD and 2 h" in done.stderr
    assert str(workshop.folder / "out" / "output.jsonl") in done.stderr
    assert len((workshop.folder / "out" / "output.jsonl").read_text().splitlines()) == 2
    receipt = json.loads(workshop.inv("receipt", "one", "--json").stdout)
    (line,) = receipt["machines"]
    (machine,) = clouds.machines()
    assert (line["cloud"], line["id"], line["region"]) == ("runpod", machine.id, "US-KS-2")
    assert line["gpu"].startswith("H100") and line["proven_gone"]
    assert line["boot_s"] + line["work_s"] + line["idle_s"] == pytest.approx(line["seconds"], abs=0.2)
    assert receipt["check"]["usd"]["actual"] == receipt["usd"]
    assert receipt["check"]["output_tokens"]["actual"] == receipt["usage"]["output_tokens"] > 0
    clouds.wait_until_nothing_is_left()

    again = plan(workshop, workshop.folder / "jobs" / "qwen2-5-7b-instruct.yaml")
    boot = again["estimate"]["basis"]["boot_minutes"]
    assert (boot["source"], boot["words"]) == ("receipts", "as in your own run one")
    assert boot["span"]["likely"] == pytest.approx(line["boot_s"] / 60, abs=0.01)


def test_a_run_on_this_computer_without_a_file_teaches_the_next_plan(workshop: Workshop) -> None:
    workshop.write_input(workshop.folder / "x.jsonl", lines=40, max_tokens=8)
    flags = ["--model", "builtin:tiny-chat", "--cloud", "local", "--input", "x.jsonl", "--name", "drills"]

    started = workshop.inv("run", *flags, "--detach", "--json")
    run = json.loads(started.stdout)["run"]
    followed = workshop.inv("follow", run, "--json")

    assert (started.returncode, followed.returncode) == (0, 0), started.stderr + followed.stderr
    events = [json.loads(line) for line in followed.stdout.splitlines()]
    assert events[-1]["event"] == "run_ended"
    logged = [json.loads(line) for line in workshop.inv("logs", run, "--json").stdout.splitlines()]
    assert logged == events
    lines = workshop.inv("logs", run, "--source", "lifecycle", "--json").stdout.splitlines()
    assert all(json.loads(line)["file"] == "lifecycle.log" for line in lines)
    files = json.loads(workshop.inv("results", run, "--json").stdout)
    assert (files["run"], files["error_file"]) == (run, None)
    assert len(Path(files["output_file"]).read_text().splitlines()) == 40
    job = workshop.folder / "jobs" / "drills.yaml"
    assert workshop.inv("validate", str(job)).returncode == 0
    basis = plan(workshop, job)["estimate"]["basis"]
    assert {basis[key]["source"] for key in ("prompt_tokens", "output_tokens", "boot_minutes")} == {"receipts"}
    receipt = json.loads(workshop.inv("receipt", run, "--json").stdout)
    assert basis["prompt_tokens"]["span"]["likely"] == pytest.approx(receipt["usage"]["input_tokens"])
    workshop.wait_until_nothing_is_left()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "--model, --gpu, --cloud"),
        (["run", "job.yaml", "--model", QWEN], "--model does not go with a job file"),
        (["run", *WITHOUT_FILE], "needs --max-usd and --max-hours"),
        (["run", "--model", QWEN, "--gpu", "H1000", "--cloud", "lambda", *LIMITS], "no GPU is called"),
        (["run", *WITHOUT_FILE, *LIMITS, "--limit", "0"], "--limit takes a number of lines from 1 on"),
        (["resume", "--limit", "few"], "--limit takes a number of lines from 0 on"),
        (["retry", "--limit", "-3"], "--limit takes a number of lines from 0 on"),
        (["new", "--model", "qwen"], "no model of the hub"),
    ],
)
def test_flags_that_make_no_sense_are_exit_2_and_write_nothing(
    workshop: Workshop, arguments: list[str], words: str
) -> None:
    write_aibrix_input(workshop.folder / "x.jsonl")

    done = workshop.inv(*arguments)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (workshop.home / "runs").exists()
