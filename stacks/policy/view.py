"""What a policy has done to a plan, or refuses, in words: one line a rule. Called by the plan's views and by what plans."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.text import Text

from schemas.errors import PolicyError
from stacks.policy.policy import PolicyResult, Removed
from stacks.terminal.console import print_data
from stacks.terminal.paragraph import Paragraph

_MOST_NAMED = 3


def render_policy(result: PolicyResult) -> Group:
    """The policy's lines for a terminal: what was removed in yellow, else that nothing was."""
    head, *removals = describe_policy(result)
    return Group(
        Paragraph(head, label="policy: "),
        *(Paragraph(Text(each, "yellow"), label=Text("policy: ", "yellow")) for each in removals),
    )


def describe_policy(result: PolicyResult) -> list[str]:
    """First whether the plan keeps to the policy, then one sentence for each rule that removed something."""
    rules = ", ".join(result.rules) or "no rule"
    head = f"the plan keeps to {result.file} ({rules})"
    by_rule: dict[tuple[str, int, str], list[Removed]] = {}
    for each in result.removed:
        # An offer's reason names its region or price, so offers of one rule are told together by the first.
        why = each.why if each.price_usd_per_hour is None else ""
        by_rule.setdefault((each.rule, each.candidate, why), []).append(each)
    return [head, *(_describe(rule, candidate, found) for (rule, candidate, _), found in by_rule.items())]


def _describe(rule: str, candidate: int, found: Sequence[Removed]) -> str:
    first = found[0]
    if first.price_usd_per_hour is None:
        kind = " ".join(word for word in (first.cloud, first.gpu) if word)
        return f"{rule} removes candidate {candidate} ({kind}): {first.why}"
    named = list(dict.fromkeys(_name(each) for each in found))
    listed = ", ".join(named[:_MOST_NAMED]) + (", ..." if len(named) > _MOST_NAMED else "")
    offers = "1 offer" if len(found) == 1 else f"{len(found)} offers"
    return f"{rule} removes {offers} of candidate {candidate}: {listed}"


def _name(removed: Removed) -> str:
    where = removed.region or "any region"
    return f"{removed.cloud} {removed.gpu} in {where} at {removed.price_usd_per_hour:.2f}"


@contextlib.contextmanager
def tell_refusal(as_json: bool) -> Iterator[None]:
    """Let a policy's refusal through, and with as_json tell the rule as data too."""
    try:
        yield
    except PolicyError as error:
        if as_json:
            print_data({"refused": {"rule": error.rule, "message": error.what, "job": error.where, "fix": error.fix}})
        raise
