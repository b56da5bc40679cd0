"""Jobs as text: a commented one to start from (`./inv new`), and the one that `run --model` writes down and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from schemas.spec_words import render_value

# The release that the shipped templates name, for models that have no template.
VLLM_VERSION = "0.32.0"

_HEAD = """\
# yaml-language-server: $schema={schema}
version: 1
name: {name}

{about_input}input: {input}
{output}
{about_endpoint}endpoint: {endpoint}
{deployment}
"""

_ABOUT_INPUT = "# The batch file: one request a line, in OpenAI's format. The path counts from this file's folder.\n"
_NO_OUTPUT = "# Where the results go; left out, they stay in the run's own folder.\n# output: results/{name}/\n"
_ABOUT_ENDPOINT = "# What every line asks for: /v1/chat/completions, /v1/completions, /v1/embeddings or /v1/rerank.\n"
_TEMPLATE = """\
# A file of jobs/templates; every line's "model" must be the name that it serves.
template: {template}
# overrides:
#   engine_args: {{max_model_len: 4096}}
"""
_ABOUT_DEPLOY = (
    '# What serves the model, as a template says it; every line\'s "model" must be the name that it serves.\n'
)

_MACHINES = """\
{about_window}completion_window: 24h

machines:
  replicas: {replicas}
  min_replicas: 1
{about_candidates}  candidates:
{candidates}
"""
_ABOUT_WINDOW = "# How long the batch may take: 90m, 24h, 7d.\n"
_ABOUT_CANDIDATES = "  # Tried in this order; `rank: price` takes the cheapest first.\n"

_ABOUT_LIMITS = "# Both are required for clouds that cost money; whatever is reached first ends the run.\n"
_MORE_LIMITS = """\
  # boot_minutes: 30                  # until a machine's engine answers
  # boot_usd: 3                       # for machines that do not answer yet
"""
_MORE = """
# dispatch:
#   max_concurrency: auto             # requests under way on one machine
#   max_retries: 5
#   request_timeout_s: auto

# Who is told how the run goes, besides whom the policy and LEASEHOLD_NOTIFY_WEBHOOK name; an address may be a secret.
# notify:
#   - {type: slack, url: env:SLACK_WEBHOOK_URL, on: [failed, expired, budget, release_unverified]}
#   - {type: webhook, url: https://hooks.example.org/leasehold, secret: env:HOOK_SECRET}

# metadata: {team: search}
"""


class JobDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a job says, before it is text. deploy: a template's spec, instead of the name of a template.

    is_example: with every remark and what else a job may say, for a person to go on from. schema: where editors find the
    JSON Schema, from the job's folder.
    """

    name: str
    input: str
    output: str = ""
    endpoint: str = "/v1/chat/completions"
    template: str = ""
    deploy: Mapping[str, Any] = {}
    candidates: Sequence[Mapping[str, Any]]
    replicas: int = 1
    max_usd: float | None = None
    max_hours: float | None = None
    schema: str = "../schemas/job.schema.json"
    is_example: bool = False


EXAMPLE = JobDraft(
    name="tickets",
    input="data/tickets.jsonl",
    template="qwen2-5-7b@v1.0.0",
    candidates=(
        {"cloud": "runpod", "gpu": "H100", "tier": "secure", "max_usd_per_hour": 3.5},
        {"cloud": "lambda", "gpu": "H100", "max_usd_per_hour": 3.5},
    ),
    max_usd=10,
    max_hours=4,
    is_example=True,
)


def render_job_skeleton(draft: JobDraft = EXAMPLE) -> str:
    """The text of a job."""
    parts = [_render_head(draft), _render_machines(draft), _render_limits(draft)]
    text = "\n".join(part for part in parts if part) + (_MORE if draft.is_example else "")
    return text.rstrip() + "\n"


def _render_head(draft: JobDraft) -> str:
    output = f"output: {render_value(draft.output)}\n" if draft.output else ""
    if draft.is_example and not draft.output:
        output = _NO_OUTPUT.format(name=draft.name)
    if draft.deploy:
        about = _ABOUT_DEPLOY if draft.is_example else ""
        deployment = about + "deploy:\n" + "\n".join(_render_block(draft.deploy, 1))
    else:
        deployment = _TEMPLATE.format(template=render_value(draft.template)).rstrip()
    return _HEAD.format(
        schema=draft.schema,
        name=draft.name,
        about_input=_ABOUT_INPUT if draft.is_example else "",
        input=render_value(draft.input),
        output=output,
        about_endpoint=_ABOUT_ENDPOINT if draft.is_example else "",
        endpoint=draft.endpoint,
        deployment=deployment,
    )


def _render_machines(draft: JobDraft) -> str:
    candidates = [f"    - {render_value(dict(each))}" for each in draft.candidates]
    if draft.is_example and all(each["cloud"] != "local" for each in draft.candidates):
        candidates.insert(0, "    # - {cloud: local}                # this computer, free of charge")
    return _MACHINES.format(
        about_window=_ABOUT_WINDOW if draft.is_example else "",
        replicas=draft.replicas,
        about_candidates=_ABOUT_CANDIDATES if draft.is_example else "",
        candidates="\n".join(candidates),
    )


def _render_limits(draft: JobDraft) -> str:
    named = {"max_usd": draft.max_usd, "max_hours": draft.max_hours}
    given = [f"  {key}: {_write_number(value)}\n" for key, value in named.items() if value is not None]
    if not given:
        return ""
    if not draft.is_example:
        return "limits:\n" + "".join(given)
    return _ABOUT_LIMITS + "limits:\n" + "".join(given) + _MORE_LIMITS


def _write_number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _render_block(data: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Mappings under each other, everything else on one line."""
    indent = "  " * depth
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _render_block(value, depth + 1)
        else:
            yield f"{indent}{key}: {render_value(value)}"
