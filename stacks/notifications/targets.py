"""Who is to be told about a run: the job's list, the policy's, and the environment's, with their secrets looked up.

Called by the notifier. Secrets stay in this process: they are in no record that is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import CredentialError
from schemas.notification import Notification
from schemas.notify import NotifyTarget, Occasion
from stacks.launch.secret_reference import load_secret
from stacks.notifications.text import render_body, render_slack, render_summary
from stacks.notifications.webhook import Delivery, find_flaw, make_signature, post
from stacks.planning.plan import Plan

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
_WEBHOOK, _SECRET, _SLACK = "LEASEHOLD_NOTIFY_WEBHOOK", "LEASEHOLD_NOTIFY_SECRET", "LEASEHOLD_NOTIFY_SLACK"
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

    def wants(self, told: Notification) -> bool:
        return not self.target.on or told.event in self.target.on

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


def list_targets(plan: Plan, environ: Mapping[str, str]) -> Iterator[tuple[str, NotifyTarget]]:
    """Every target with the place where it stands."""
    for index, target in enumerate(plan.job.notify):
        yield f"job notify[{index}]", target
    policy = plan.policy.notify if plan.policy else ()
    for index, target in enumerate(policy):
        yield f"policy notify[{index}]", target
    if environ.get(_WEBHOOK, "").strip():
        secret = f"env:{_SECRET}" if environ.get(_SECRET, "").strip() else ""
        yield _WEBHOOK, NotifyTarget(type="webhook", url=f"env:{_WEBHOOK}", secret=secret)
    if environ.get(_SLACK, "").strip():
        yield _SLACK, NotifyTarget(type="slack", url=f"env:{_SLACK}")
    if environ.get(SUMMARY_VARIABLE) and not any(each.type == "github" for each in (*plan.job.notify, *policy)):
        yield SUMMARY_VARIABLE, NotifyTarget(type="github", on=_ENDINGS)


def open_receivers(plan: Plan, environ: Mapping[str, str]) -> tuple[list[Receiver], list[str]]:
    """Those that can be told, and for each of the others one sentence why not."""
    receivers: list[Receiver] = []
    flaws: list[str] = []
    for name, target in list_targets(plan, environ):
        try:
            receiver = _open(name, target, environ)
        except CredentialError as error:
            flaws.append(f"{name} ({target.type}) cannot be told: {error.what}")
            continue
        if receiver is not None:
            receivers.append(receiver)
    return receivers, flaws


def _open(name: str, target: NotifyTarget, environ: Mapping[str, str]) -> Receiver | None:
    """None for a step summary outside of GitHub, where there is nothing to write to."""
    if target.type == "github":
        summary = environ.get(SUMMARY_VARIABLE, "")
        return Receiver(name, target, summary=summary) if summary else None
    url = _look_up(target.url, environ) if "://" not in target.url else target.url
    flaw = find_flaw(url)
    if flaw:
        raise CredentialError(flaw)
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
