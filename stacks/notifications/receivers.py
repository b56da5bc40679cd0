"""Those who can be told about a run of a plan, each with its one way to be told. Called by the notifier and the late delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.errors import LeaseholdError
from schemas.notification import Notification
from schemas.notify import NotifyTarget
from stacks.notifications.targets import Address, find_address, list_targets, make_label
from stacks.notifications.text import render_body, render_slack, render_summary
from stacks.notifications.webhook import Delivery, make_signature, post
from stacks.planning.plan import Plan


class Receiver:
    """One target that can be told; name is where it was written, label is for people and holds no secret."""

    def __init__(self, name: str, target: NotifyTarget, address: Address) -> None:
        self.name = name
        self.target = target
        self.label = make_label(target, address)
        self._address = address

    def tell(self, told: Notification) -> Delivery:
        """One try; raises nothing."""
        if self.target.type == "github":
            return _append(self._address.url, render_summary(told))
        if self.target.type == "slack":
            return post(self._address.url, render_slack(told), {})
        body = render_body(told)
        headers = {"X-Leasehold-Event": told.event, "X-Leasehold-Id": told.id}
        if self._address.secret:
            headers["X-Leasehold-Signature"] = make_signature(self._address.secret, body)
        return post(self._address.url, body, headers)


def list_plan_targets(plan: Plan, environ: Mapping[str, str]) -> list[tuple[str, NotifyTarget]]:
    """Everybody who is to be told about a run of this plan."""
    return list(list_targets(plan.job.notify, plan.policy.notify if plan.policy else (), environ))


def is_wanted(told: Notification, target: NotifyTarget) -> bool:
    return not target.on or told.event in target.on


def open_receivers(
    targets: Sequence[tuple[str, NotifyTarget]], environ: Mapping[str, str]
) -> tuple[list[Receiver], dict[str, LeaseholdError]]:
    """Those that can be told, and by its place for each of the others why not."""
    receivers: list[Receiver] = []
    flaws: dict[str, LeaseholdError] = {}
    for name, target in targets:
        try:
            receivers.append(Receiver(name, target, find_address(name, target, environ)))
        except LeaseholdError as error:
            flaws[name] = error
    return receivers, flaws


def _append(path: str, text: str) -> Delivery:
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return Delivery(ok=False, is_final=True, words=error.strerror or type(error).__name__)
    return Delivery(ok=True, is_final=True, words="written")
