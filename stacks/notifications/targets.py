"""Who is to be told about a run: the job's list, the policy's, and the environment's, with their secrets looked up.

Called by the notifier, the late delivery and the check before a run. Secrets stay in this process: they are in no record
that is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import LeaseholdError, SpecError
from schemas.notification import Notification
from schemas.notify import NotifyTarget, Occasion
from stacks.launch.secret_reference import load_secret
from stacks.notifications.text import render_body, render_slack, render_summary
from stacks.notifications.webhook import Delivery, find_flaw, make_signature, post
from stacks.planning.plan import Plan

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
WEBHOOK_VARIABLE, SLACK_VARIABLE = "LEASEHOLD_NOTIFY_WEBHOOK", "LEASEHOLD_NOTIFY_SLACK"
_SECRET = "LEASEHOLD_NOTIFY_SECRET"
_ENDINGS: tuple[Occasion, ...] = ("finished", "failed", "expired", "cancelled", "released", "release_unverified")


class Receiver:
    """One target that can be told; name is where it was written, label is for people and holds no secret."""

    def __init__(self, name: str, target: NotifyTarget, *, url: str = "", secret: str = "", summary: str = "") -> None:
        self.name = name
        self.target = target
        host = urlsplit(url).hostname or "" if url else ""
        self.label = f"{target.type} {host}".strip()
        self._url = url
        self._secret = secret
        self._summary = summary

    def tell(self, told: Notification) -> Delivery:
        """One try; raises nothing."""
        if self.target.type == "github":
            return _append(self._summary, render_summary(told))
        if self.target.type == "slack":
            return post(self._url, render_slack(told), {})
        body = render_body(told)
        headers = {"X-Leasehold-Event": told.event, "X-Leasehold-Id": told.id}
        if self._secret:
            headers["X-Leasehold-Signature"] = make_signature(self._secret, body)
        return post(self._url, body, headers)


def list_targets(
    of_job: Sequence[NotifyTarget], of_policy: Sequence[NotifyTarget], environ: Mapping[str, str]
) -> Iterator[tuple[str, NotifyTarget]]:
    """Every target with the place where it stands; without a step summary, as outside of GitHub, nobody is told there."""
    summary = environ.get(SUMMARY_VARIABLE, "")
    for owner, targets in (("job", of_job), ("policy", of_policy)):
        for index, target in enumerate(targets):
            if summary or target.type != "github":
                yield f"{owner} notify[{index}]", target
    if environ.get(WEBHOOK_VARIABLE, "").strip():
        secret = f"env:{_SECRET}" if environ.get(_SECRET, "").strip() else ""
        yield WEBHOOK_VARIABLE, NotifyTarget(type="webhook", url=f"env:{WEBHOOK_VARIABLE}", secret=secret)
    if environ.get(SLACK_VARIABLE, "").strip():
        yield SLACK_VARIABLE, NotifyTarget(type="slack", url=f"env:{SLACK_VARIABLE}")
    if summary and not any(each.type == "github" for each in (*of_job, *of_policy)):
        yield SUMMARY_VARIABLE, NotifyTarget(type="github", on=_ENDINGS)


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
            receivers.append(open_receiver(name, target, environ))
        except LeaseholdError as error:
            flaws[name] = error
    return receivers, flaws


def open_receiver(name: str, target: NotifyTarget, environ: Mapping[str, str]) -> Receiver:
    """Raises CredentialError for what is not set, and SpecError for an address that nobody can be told at."""
    if target.type == "github":
        return Receiver(name, target, summary=environ.get(SUMMARY_VARIABLE, ""))
    url = _look_up(target.url, environ) if "://" not in target.url else target.url
    flaw = find_flaw(url)
    if flaw:
        raise SpecError(flaw, where=name, fix="Write https://host/path, as the receiver gave it to you.")
    return Receiver(name, target, url=url, secret=_look_up(target.secret, environ))


def _look_up(reference: str, environ: Mapping[str, str]) -> str:
    return load_secret(reference, environ=environ, get_config=lambda _: None)


def _append(path: str, text: str) -> Delivery:
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return Delivery(ok=False, is_final=True, words=error.strerror or type(error).__name__)
    return Delivery(ok=True, is_final=True, words="written")
