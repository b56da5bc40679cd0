"""A plan as Markdown, for a pull request's comment and a workflow's summary. Pure; called by the Markdown report.

What comes from a job's file is put into code spans with their ends taken out, so that it can neither link nor mention anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.errors import LeaseholdError, Problem, SpecError
from schemas.job import Candidate, LoadedJob
from stacks.planning.estimate import InputSummary
from stacks.planning.plan import Plan
from stacks.policy.view import describe_policy
from stacks.terminal.duration_words import format_duration

_MOST_CHOICES = 10
_MOST_PROBLEMS = 20


def render_plan_markdown(name: str, plan: Plan, notices: Sequence[str] = ()) -> str:
    """Requests, price range, offers, limits and the policy's result; name: the job's file as people know it.

    notices: what was left out or not looked at, since a key for it was missing or somebody did not answer.
    """
    job, estimate = plan.job, plan.estimate
    parts = [
        _render_head(name, "ready"),
        _describe_requests(plan.input.requests, plan.template.reference, job.endpoint, job.machines.replicas),
        _render_table(
            ("", "low", "likely", "high"),
            [
                ("cost in USD", *(f"**{each:.2f}**" for each in _list_usd(plan))),
                (
                    "time",
                    *(
                        format_duration(each * 3600)
                        for each in (estimate.low_hours, estimate.likely_hours, estimate.high_hours)
                    ),
                ),
            ],
        ),
        _render_choices(plan),
        _describe_limits(job.limits.max_usd, plan.lifetime_s),
    ]
    if notices:
        parts.append(_render_list("Not looked at", [_quote(line) for line in notices]))
    if plan.policy:
        parts.append(_render_list("Policy", [_quote(line) for line in describe_policy(plan.policy)]))
    parts.append(_fold("What the estimate stands on", [*estimate.warnings, *estimate.assumptions]))
    return "\n\n".join(parts) + "\n"


def render_offline_markdown(
    name: str, loaded: LoadedJob, summary: InputSummary | None, reason: str, policy: Sequence[Problem]
) -> str:
    """What is known of a plan without asking a cloud; summary None: nor could the input be read, which is in S3.

    policy: what it removes as far as that can be told.
    """
    job = loaded.job
    requests = summary.requests if summary else None
    lifetime_s = min(job.completion_window_s, (job.limits.max_hours or job.completion_window_s) * 3600)
    return (
        "\n\n".join(
            [
                _render_head(name, "valid, without prices"),
                _describe_requests(requests, loaded.template.reference, job.endpoint, job.machines.replicas),
                f"There are no offers and prices here: {_quote(reason)}. Whoever runs it sees them before anything is rented.",
                _render_table(
                    ("candidate", "GPU", "tier", "regions", "at most USD/h"), _list_candidates(job.machines.candidates)
                ),
                _describe_limits(job.limits.max_usd, lifetime_s),
                *([_render_list("Policy", [_quote(each.message) for each in policy])] if policy else []),
            ]
        )
        + "\n"
    )


def render_refusal_markdown(name: str, error: LeaseholdError) -> str:
    """Why there is no plan."""
    problems = error.problems if isinstance(error, SpecError) else ()
    lines = [_quote(f"{_place(each)} {each.message}") for each in problems[:_MOST_PROBLEMS]]
    rest = len(problems) - _MOST_PROBLEMS + (error.omitted if isinstance(error, SpecError) else 0)
    if rest > 0:
        lines.append(f"and {rest} more")
    what = [_quote(line) for line in error.what.splitlines()]
    fix = [_quote(line.strip()) for line in error.fix.splitlines() if line.strip()]
    return (
        "\n\n".join(
            [_render_head(name, f"refused, exit code {error.exit_code}"), _render_list("", [*what, *lines, *fix])]
        )
        + "\n"
    )


def _place(problem: Problem) -> str:
    """Its line in the job's file, or what else is wrong, such as a variable."""
    return f"{problem.line}:{problem.column}" if problem.line else f"{problem.file}:"


def _render_head(name: str, verdict: str) -> str:
    return f"### {_quote(name)}: {verdict}"


def _describe_requests(requests: int | None, template: str, endpoint: str, replicas: int) -> str:
    machines = "1 machine" if replicas == 1 else f"{replicas} machines"
    counted = (
        f"**{requests:,}** requests"
        if requests is not None
        else "Requests that were not counted, since the input is in S3 and there is no key here that can read it,"
    )
    return f"{counted} to {_quote(endpoint)} with {_quote(template)} on {machines}."


def _list_usd(plan: Plan) -> tuple[float, float, float]:
    return plan.estimate.low_usd, plan.estimate.likely_usd, plan.estimate.high_usd


def _render_choices(plan: Plan) -> str:
    rows = []
    for rank, choice in enumerate(plan.choices[:_MOST_CHOICES], start=1):
        offer = choice.offer
        stock = offer.stock.lower() if offer.available else "sold out"
        rows.append(
            (str(rank), offer.cloud, offer.gpus, offer.tier, offer.region, f"{offer.price_usd_per_hour:.2f}", stock)
        )
    table = _render_table(("try", "cloud", "GPU", "tier", "region", "USD/h", "stock"), rows)
    rest = len(plan.choices) - _MOST_CHOICES
    return f"{table}\n\nand {rest} more" if rest > 0 else table


def _list_candidates(candidates: Sequence[Candidate]) -> list[tuple[str, ...]]:
    return [
        (
            each.cloud,
            _quote(each.gpu or f"any with {each.min_gb} GB"),
            each.tier,
            ", ".join(each.regions),
            f"{each.max_usd_per_hour:.2f}" if each.max_usd_per_hour is not None else "",
        )
        for each in candidates
    ]


def _describe_limits(max_usd: float | None, lifetime_s: float) -> str:
    money = f"at most **{max_usd:.2f} USD**" if max_usd is not None else "no limit in USD"
    return f"Limits: {money}, at most {format_duration(lifetime_s)}."


def _render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def _render_list(title: str, lines: Iterable[str]) -> str:
    listed = "\n".join(f"- {line}" for line in lines)
    return f"{title}:\n\n{listed}" if title else listed


def _fold(title: str, lines: Sequence[str]) -> str:
    listed = "\n".join(f"- {_quote(line)}" for line in lines)
    return f"<details><summary>{title}</summary>\n\n{listed}\n\n</details>"


def _quote(text: str) -> str:
    """Text that a person wrote, as code on one line: neither Markdown nor HTML nor a mention in it counts."""
    words = " ".join(text.replace("`", "'").replace("|", "/").split())
    return f"`{words}`" if words else "` `"
