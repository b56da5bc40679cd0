"""A right job and a right template, which the tests break in one place each."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import Problem, SpecError
from schemas.job import LoadedJob, load_job
from schemas.template import Template, load_template

PROJECT = Path(__file__).parents[2]

JOB = """\
version: 1
name: tickets
input: data/tickets.jsonl
output: results/
endpoint: /v1/chat/completions
template: qwen@v1.0.0
overrides:
  engine_args: {max_model_len: 4096}
completion_window: 24h
machines:
  replicas: 2
  min_replicas: 1
  candidates:
    - cloud: runpod
      gpu: H100
      tier: secure
    - cloud: lambda
  rank: order
limits:
  max_usd: 25
  max_hours: 6
dispatch:
  max_concurrency: auto
  ordered: false
metadata:
  team: search
"""

TEMPLATE = """\
name: qwen
version: v1.0.0
status: active
spec:
  engine:
    type: vllm
    image: vllm/vllm-openai:v0.32.0
    serve_args: [--trust-remote-code]
    ready_timeout_seconds: 1800
  model_source:
    type: huggingface
    uri: Qwen/Qwen2.5-7B-Instruct
    auth_secret_ref: env:HF_TOKEN
  accelerator:
    type: H100
    count: 1
    vram_gb: 24
  parallelism: {tp: 1}
  engine_args:
    max_num_seqs: 64
    enable_prefix_caching: true
  quantization:
    weight: bf16
  supported_endpoints:
    - /v1/chat/completions
  served_model_name: qwen
"""


def write_job(folder: Path, text: str = JOB, *, template: str = TEMPLATE) -> Path:
    """The job with its input and its template beside it."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "tickets.jsonl").write_text("{}\n")
    (folder / "templates").mkdir(exist_ok=True)
    (folder / "templates" / "qwen.yaml").write_text(template)
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def break_text(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} must stand exactly once, so that the test breaks what it means to"
    return text.replace(old, new)


def load(folder: Path, text: str = JOB, *, template: str = TEMPLATE) -> LoadedJob:
    return load_job(write_job(folder, text, template=template), templates_dir=folder / "templates")


def find_job_problems(folder: Path, text: str = JOB, *, template: str = TEMPLATE) -> tuple[Problem, ...]:
    try:
        load(folder, text, template=template)
    except SpecError as error:
        return error.problems
    return ()


def find_template_problems(folder: Path, text: str) -> tuple[Problem, ...]:
    path = folder / "template.yaml"
    path.write_text(text)
    try:
        load_template(path)
    except SpecError as error:
        return error.problems
    return ()


def load_text(folder: Path, text: str = TEMPLATE) -> Template:
    path = folder / "template.yaml"
    path.write_text(text)
    return load_template(path)
