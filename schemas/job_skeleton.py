"""A commented job to start from, as text. `./inv new` writes it to a file."""

from __future__ import annotations

from schemas.spec_words import render_value

_TEXT = """\
# yaml-language-server: $schema={schema}
version: 1
name: {name}

# The batch file: one request a line, in OpenAI's format. The path counts from this file's folder.
input: {input}
# Where the results go; left out, they stay in the run's own folder.
# output: results/{name}/

# What every line asks for: /v1/chat/completions, /v1/completions, /v1/embeddings or /v1/rerank.
endpoint: {endpoint}
# A file of jobs/templates; every line's "model" must be the name that it serves.
template: {template}
# overrides:
#   engine_args: {{max_model_len: 4096}}

# How long the batch may take: 90m, 24h, 7d.
completion_window: 24h

machines:
  replicas: 1
  min_replicas: 1
  # Tried in this order; `rank: price` takes the cheapest first.
  candidates:
    # - {{cloud: local}}                # this computer, free of charge
    - {{cloud: runpod, gpu: {gpu}, tier: secure, max_usd_per_hour: 3.50}}
    # - {{cloud: lambda, gpu: {gpu}, max_usd_per_hour: 3.50}}

# Both are required for clouds that cost money; whatever is reached first ends the run.
limits:
  max_usd: 10
  max_hours: 4
  # boot_minutes: 30                  # until a machine's engine answers
  # boot_usd: 3                       # for machines that do not answer yet

# dispatch:
#   max_concurrency: auto             # requests under way on one machine
#   max_retries: 5
#   request_timeout_s: auto

# metadata: {{team: search}}
"""


def render_job_skeleton(
    *,
    name: str = "tickets",
    input: str = "data/tickets.jsonl",
    endpoint: str = "/v1/chat/completions",
    template: str = "qwen2-5-7b@v1.0.0",
    gpu: str = "H100",
    schema: str = "../schemas/job.schema.json",
) -> str:
    """The text of a job; schema is where editors find the JSON Schema, from the job's folder."""
    return _TEXT.format(
        name=name,
        input=render_value(input),
        endpoint=endpoint,
        template=template,
        gpu=render_value(gpu),
        schema=schema,
    )
