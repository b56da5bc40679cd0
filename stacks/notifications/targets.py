"""Who is to be told about a run: the job's list, the policy's, and the environment's, with their secrets looked up.

Called by the receivers and by the check before a run. Secrets stay in this process: they are in no record that is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from schemas.errors import SpecError
from schemas.loopback import is_loopback
from schemas.notify import NotifyTarget, Occasion
from stacks.launch.secret_reference import load_secret

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
WEBHOOK_VARIABLE, SLACK_VARIABLE = "LEASEHOLD_NOTIFY_WEBHOOK", "LEASEHOLD_NOTIFY_SLACK"
_SECRET = "LEASEHOLD_NOTIFY_SECRET"
_ENDINGS: tuple[Occasion, ...] = ("finished", "failed", "expired", "cancelled", "released", "release_unverified")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a target is told, and what signs it; for GitHub the summary's file is the url. Never written anywhere."""

    url: str
    secret: str = ""


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


def find_address(name: str, target: NotifyTarget, environ: Mapping[str, str]) -> Address:
    """Raises CredentialError for what is not set, and SpecError for an address that nobody can be told at."""
    if target.type == "github":
        return Address(url=environ.get(SUMMARY_VARIABLE, ""))
    url = _look_up(target.url, environ) if "://" not in target.url else target.url
    flaw = _find_flaw(url)
    if flaw:
        raise SpecError(flaw, where=name, fix="Write https://host/path, as the receiver gave it to you.")
    return Address(url=url, secret=_look_up(target.secret, environ))


def make_label(target: NotifyTarget, address: Address) -> str:
    """The target for people: its type and host, which hold no secret."""
    return target.type if target.type == "github" else f"{target.type} {urlsplit(address.url).hostname or ''}".strip()


def _look_up(reference: str, environ: Mapping[str, str]) -> str:
    return load_secret(reference, environ=environ, get_config=lambda _: None)


def _find_flaw(url: str) -> str:
    """Why an address cannot be used, without repeating it; "" when it can."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        (host or "").encode("idna")  # a name such as `a..b` is none, which would be an error only when it is sent
        is_whole = parts.scheme in ("http", "https") and bool(host) and (parts.port or 1) > 0
    except ValueError:
        is_whole = False
    if not is_whole or not url.isascii() or not url.isprintable() or " " in url:
        return "it holds no http address"
    if parts.username is not None or parts.password is not None:
        return "the address holds a user or password"
    if parts.scheme == "http" and not is_loopback(url):
        return "the address is not https, and anybody on the way could read what is told"
    return ""
