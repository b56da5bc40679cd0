"""Who is told about a run: the `notify` list of a job or a policy as frozen records. Secrets stay references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.errors import Problem
from schemas.home_path import expand_home
from schemas.loopback import is_loopback
from schemas.raw_spec import find_list, find_mapping, find_text
from schemas.yaml_source import Document

TargetType = Literal["webhook", "slack", "github"]
Occasion = Literal["finished", "failed", "expired", "cancelled", "budget", "released", "release_unverified"]


class NotifyTarget(msgspec.Struct, frozen=True, kw_only=True):
    """url: an address, or `env:NAME` or `file:PATH` (absolute); secret: such a reference or "". on: empty means all."""

    type: TargetType
    url: str = ""
    secret: str = ""
    on: tuple[Occasion, ...] = ()


def make_targets(data: Mapping[str, Any], *, folder: Path) -> tuple[NotifyTarget, ...]:
    """The checked `notify` list of a file; relative file references count from its folder."""
    return tuple(
        msgspec.convert({**each, **_make_absolute(each, folder)}, NotifyTarget) for each in find_list(data, ("notify",))
    )


def check_targets(document: Document) -> Iterator[Problem]:
    """What the schema cannot say: which keys go with which type."""
    for index, target in enumerate(find_list(document.data, ("notify",))):
        kind, url = find_text(target, ("type",)), find_text(target, ("url",))
        keys = find_mapping(target, ())
        path = ("notify", index)
        if kind in ("webhook", "slack") and "url" not in keys:
            fix = f"Add `url: env:{kind.upper()}_URL`, and set that variable."
            yield document.make_problem(path, f"`url` is missing for {kind}", code="missing_key", fix=fix)
        for key in ("url", "secret"):
            if key in keys and (kind == "github" or (kind == "slack" and key == "secret")):
                message = f"`{key}` has no effect on {kind}"
                yield document.make_problem((*path, key), message, code="no_effect", fix="Remove it.", at_key=True)
        if kind == "slack" and "://" in url:
            fix = "Write `url: env:SLACK_WEBHOOK_URL`, and set that variable."
            message = "Slack's addresses are secrets, and do not belong in a file"
            yield document.make_problem((*path, "url"), message, code="secret_in_file", fix=fix)
        elif url.startswith("http://") and not is_loopback(url):
            fix = "Use https:."
            message = "over http anybody on the way could read what is told"
            yield document.make_problem((*path, "url"), message, code="no_tls", fix=fix)


def _make_absolute(target: Mapping[str, Any], folder: Path) -> dict[str, str]:
    found = {}
    for key in ("url", "secret"):
        kind, _, name = find_text(target, (key,)).partition(":")
        if kind == "file":
            found[key] = f"file:{(folder / expand_home(name)).resolve()}"
    return found
