"""A plan as a person reads it: offers, what limits removed, cost and time, and what they stand on. Pure rendering with rich."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stacks.planning.estimate import Estimate
from stacks.planning.plan import LeftOut, Plan
from stacks.policy.view import render_policy
from stacks.terminal.console import Fitting, make_table
from stacks.terminal.duration_words import format_duration
from stacks.terminal.paragraph import Paragraph

_MOST_CHOICES = 12


def render_plan(plan: Plan) -> RenderableType:
    """What `plan` shows: requests, ranked offers, what limits removed, cost and time with their assumptions, limits."""
    parts: list[RenderableType] = [_render_head(plan), Text(), _render_choices(plan)]
    if plan.left_out:
        parts += [Text(), *map(_render_left_out, plan.left_out)]
    if plan.policy:
        parts += [Text(), render_policy(plan.policy)]
    return Group(*parts, Text(), _indent(_render_cost(plan.estimate)), Text(), *_list_assumptions(plan))


def _indent(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


def _render_head(plan: Plan) -> Group:
    job = plan.job
    replicas, least = job.machines.replicas, job.machines.min_replicas
    machines = "1 machine" if replicas == 1 else f"{replicas} machines, at least {least} to go on"
    requests = "1 request" if plan.input.requests == 1 else f"{plan.input.requests:,} requests"
    first = Text.assemble((job.name, "bold"), f"  {requests} to {job.endpoint}, model {plan.template.model}")
    taken = _describe_taken_over(plan)
    more = [Paragraph(taken)] if taken else []
    return Group(Paragraph(first, margin=0), *more, Paragraph(f"{machines}, template {job.template}"))


def _render_choices(plan: Plan) -> RenderableType:
    """A table, or lines where the terminal is too narrow for it."""
    narrow: list[RenderableType] = []
    table = make_table("try", "cloud", "GPU", "tier", "region", "USD/h", "stock", right=("try", "USD/h"))
    for rank, choice in enumerate(plan.choices[:_MOST_CHOICES], start=1):
        offer = choice.offer
        stock = offer.stock.lower() if offer.available else "sold out"
        price = f"{offer.price_usd_per_hour:.2f}"
        table.add_row(str(rank), offer.cloud, offer.gpus, offer.tier or "-", offer.region or "any", price, stock or "-")
        words = [f"{offer.cloud} {offer.gpus}", offer.tier, offer.region, f"{price} USD/h", stock]
        narrow.append(Paragraph(", ".join(each for each in words if each), label=f"{rank:>2}  "))
    rest = len(plan.choices) - _MOST_CHOICES
    if rest > 0:
        table.add_row("", f"and {rest} more")
        narrow.append(Paragraph(f"and {rest} more", label="    "))
    return Fitting(_indent(table), Group(*narrow))


def _render_left_out(each: LeftOut) -> Paragraph:
    """What a limit has removed, and what that would cost at the least."""
    offers = "1 offer" if each.offers == 1 else f"{each.offers} offers"
    kinds = ", ".join(each.kinds[:3]) + (", ..." if len(each.kinds) > 3 else "")
    words = f"{offers} by {each.limit}, from {each.cheapest_usd_per_hour:.2f} USD/h: {kinds}"
    which = f" of candidate {each.candidate}" if each.candidate else ""
    return Paragraph(words, label=Text(f"left out{which}  ", style="yellow"))


def _render_cost(estimate: Estimate) -> Table:
    table = make_table("", "low", "likely", "high", "", right=("low", "likely", "high"))
    usd = (estimate.low_usd, estimate.likely_usd, estimate.high_usd)
    hours = (estimate.low_hours, estimate.likely_hours, estimate.high_hours)
    table.add_row(Text("cost", style="dim"), *(Text(f"{each:.2f}", style="bold") for each in usd), "USD")
    table.add_row(Text("time", style="dim"), *(format_duration(each * 3600) for each in hours))
    return table


def _list_assumptions(plan: Plan) -> list[Paragraph]:
    """Under the cost: the limits, then what each figure stands on; long ones go on under themselves."""
    assumptions = [each.partition(": ") for each in plan.estimate.assumptions]
    width = max(len(label) for label, _, _ in [("limits", "", ""), *assumptions]) + 2
    return [
        Paragraph(_describe_limits(plan), label=Text(f"{'limits':<{width}}", style="dim")),
        *(
            Paragraph(Text(each, style="yellow"), label=Text(f"{'notice':<{width}}", style="yellow"))
            for each in plan.estimate.warnings
        ),
        *(Paragraph(words, label=Text(f"{label:<{width}}", style="dim")) for label, _, words in assumptions),
    ]


def _describe_taken_over(plan: Plan) -> str:
    taken = plan.taken_over
    if taken is None:
        return ""
    failed = f" and {taken.failures:,} final failures" if taken.failures else ""
    return f"left of {plan.requests:,}: {taken.answers:,} answers{failed} are taken over from {plan.resumes}"


def _describe_limits(plan: Plan) -> str:
    limits = plan.job.limits
    money = f"{limits.max_usd:.2f} USD" if limits.max_usd is not None else "no limit in USD"
    return f"{money}, {format_duration(plan.lifetime_s)}, {limits.boot_minutes:.0f} minutes to boot"
