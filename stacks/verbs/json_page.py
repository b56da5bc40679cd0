"""Renders docs/json.md: what every `--json` prints, from the records themselves. Called by `schema --page`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from providers.cloud import Offer
from providers.lease.reaper import Findings, Reaped
from schemas import field_page
from schemas.status import Event, Status
from stacks.planning.plan import Plan
from stacks.report.data import RunReport
from stacks.run_folder import PROJECT
from stacks.runs.receipt import Receipt
from stacks.verbs.doctor import Check
from stacks.verbs.job_turn import JobResult
from stacks.verbs.reading import ResultFiles
from stacks.verbs.validation import Report

PAGE = "docs/json.md"
COMMANDS: dict[str, tuple[Any, str]] = {
    "validate JOB...": (Report, "a list, one for each job"),
    "plan JOB": (Plan, "what `run` freezes as plan.json"),
    "run JOB, resume RUN, retry RUN, status RUN": (Status, "the run's status.json; with `run` when it has ended"),
    "status": (Status, "a list, the latest run first"),
    "run JOB JOB...": (JobResult, "a list, one for each job, in their order"),
    "logs RUN, follow RUN": (Event, "a line for each event"),
    "receipt RUN": (Receipt, "receipt.json"),
    "report RUN": (RunReport, "what the page would show"),
    "results RUN": (ResultFiles, "null for a kind of results that the run does not have"),
    "offers": (Offer, "a list, the cheapest first"),
    "doctor": (Check, "a list, one for each thing looked at"),
    "reap": (Findings, "under the key `findings`"),
    "reap --yes": (Reaped, "under the key `reaped`, null when nothing was ended"),
}
_HEAD = """# What `--json` prints

Every command that reads prints JSON with `--json`: on stdout, and nothing else there. Keys are only ever added; a record
with `version` raises it when a key changes its meaning. An empty value is `""`, `[]` or `null`, never a key that is missing.

`run --detach --json` prints `{"run": "<id>"}`. `changed-jobs --json` prints a list of paths. When a policy refuses a job,
`run --json` and `plan --json` print `{"refused": {"rule", "message", "job", "fix"}}` and end with exit code 5.

This page is made from the records (`./inv schema --page`), and a test keeps it so.
"""


def write_pages(root: Path = PROJECT) -> None:
    """Bring docs/jobs.md and docs/json.md up to date."""
    jobs = root / field_page.PAGE
    jobs.write_text(field_page.update_page(jobs.read_text(encoding="utf-8"), root=root), encoding="utf-8")
    (root / PAGE).write_text(render_json_page(), encoding="utf-8")


def render_json_page() -> str:
    """The whole page: commands with what they print, then every record with its keys, types and defaults."""
    types = [kind for kind, _ in COMMANDS.values()]
    _, records = msgspec.json.schema_components(types, ref_template="{name}")
    rows = [
        f"| `{name}` | [{kind.__name__}](#{kind.__name__.lower()}): {words} |"
        for name, (kind, words) in COMMANDS.items()
    ]
    parts = [_HEAD, "| command | prints |\n|---|---|\n" + "\n".join(rows) + "\n"]
    parts += ["\n".join(_render_record(name, records[name])) for name in sorted(records)]
    return "\n".join(parts)


def _render_record(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {name}\n"
    if schema.get("description"):
        yield f"{' '.join(schema['description'].split())}\n"
    if "properties" not in schema:
        yield f"{_name_type(schema)}\n"
        return
    required = set(schema.get("required", ()))
    yield "| key | type | default |\n|---|---|---|"
    for key, value in schema["properties"].items():
        default = "" if key in required else f"`{msgspec.json.encode(value.get('default')).decode()}`"
        yield f"| `{key}` | {_name_type(value)} | {default} |"
    yield ""


def _name_type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_name_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" if value else '`""`' for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_name_type(inner) if inner else 'any'}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"text to {_name_type(schema['additionalProperties'])}"
    return {"string": "text", "boolean": "true or false", "object": "object"}.get(kind, str(kind))
