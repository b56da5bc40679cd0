"""What a notification says: made from a run's status, and rendered for webhooks, for Slack and for GitHub. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from schemas.notification import Notification, make_notification_id
from schemas.notify import Occasion
from schemas.status import State, Status
from stacks.planning.plan import Plan

BUDGET_LEVELS = (50, 80, 100)
_OF_STATE: Mapping[State, Occasion] = {
    "completed": "finished",
    "failed": "failed",
    "resource_failed": "failed",
    "submit_failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}
_HEADS: Mapping[Occasion, tuple[str, str]] = {
    "finished": (":white_check_mark:", "finished"),
    "failed": (":x:", "failed"),
    "expired": (":hourglass:", "expired"),
    "cancelled": (":no_entry_sign:", "cancelled"),
    "budget": (":moneybag:", "budget"),
    "released": (":lock:", "released, verified: no machine of this run is left"),
    "release_unverified": (":rotating_light:", "RELEASE NOT VERIFIED"),
}


def make_end_notifications(plan: Plan, status: Status, time: str) -> list[Notification]:
    """What a run's last status has to tell: how it ended, and whether everything is given back."""
    events: list[Occasion] = []
    if status.state in _OF_STATE:
        events.append(_OF_STATE[status.state])
    if status.released != "no":
        events.append("released" if status.released == "verified" else "release_unverified")
    return [make_notification(plan, status, event, time) for event in events]


def make_notification(plan: Plan, status: Status, event: Occasion, time: str, percent: int = 0) -> Notification:
    left = [each for each in status.machines if each.state != "gone"] if event == "release_unverified" else []
    return Notification(
        id=make_notification_id(plan.run, plan.created_at, event, percent),
        event=event,
        percent=percent,
        time=time,
        run=plan.run,
        job=plan.job.name,
        state=status.state,
        released=status.released,
        exit_code=status.exit_code,
        message=status.message,
        request_counts=status.request_counts,
        usd=status.usd_so_far,
        max_usd=plan.job.limits.max_usd,
        machines_left=tuple(f"{each.cloud} {each.id} at {each.usd_per_hour:.2f} USD/h" for each in left),
    )


def render_body(told: Notification) -> bytes:
    """The JSON that a webhook gets; its signature is over exactly these bytes."""
    return msgspec.json.encode(told)


def render_slack(told: Notification) -> bytes:
    """The body for Slack and for what imitates it."""
    sign, _ = _HEADS[told.event]
    lines = [f"{sign} *{_name_event(told)}* `{told.run}`", *_list_facts(told)]
    return msgspec.json.encode({"text": _escape("\n".join(lines))})


def render_summary(told: Notification) -> str:
    """A section of GitHub's step summary."""
    head = f"### {told.run}: {_name_event(told)}"
    loud = "> [!CAUTION]\n> Machines may be left that cost money.\n\n" if told.event == "release_unverified" else ""
    return f"{head}\n\n{loud}{''.join(f'- {line}{chr(10)}' for line in _list_facts(told))}\n"


def name_event(told: Notification) -> str:
    """`finished`, or `budget 80 %`."""
    return f"{told.event} {told.percent} %" if told.event == "budget" else told.event


def _name_event(told: Notification) -> str:
    if told.event == "budget":
        return f"{told.percent} % of {told.max_usd or 0:.2f} USD used"
    return _HEADS[told.event][1]


def _list_facts(told: Notification) -> list[str]:
    counts = told.request_counts
    facts = [f"{counts.completed:,} of {counts.total:,} requests answered, {counts.failed:,} failed"]
    facts.append(f"{told.usd:.2f} USD by list price" + (f" of at most {told.max_usd:.2f}" if told.max_usd else ""))
    if told.event == "release_unverified":
        facts += [f"may still cost money: {each}" for each in told.machines_left]
        facts.append(f"Run now: `./inv release {told.run}`")
    elif told.message and told.event != "released":
        facts.append(" ".join(told.message.split()))
    # News may come late, after a receiver was down.
    facts.append(f"happened at {told.time}")
    return facts


def _escape(text: str) -> str:
    """Slack takes these three characters for its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
