"""What `reap` does: finds machines and keys past their lease in every account, shows them, and ends them with --yes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from rich.console import Group

from providers.clock import SystemClock
from providers.cloud import Cloud, TimedCloud
from providers.lease.reaper import GRACE_S, find_expired, reap
from providers.open_clouds import choose_waits, open_clouds
from providers.registry import CLOUDS
from schemas.errors import CredentialError, ReleaseError, SpecError
from stacks.terminal.console import WORDS, Fitting, make_table, print_data, print_table
from stacks.terminal.paragraph import Paragraph


def report_leftovers(*, act: bool, cloud: str, as_json: bool) -> int:
    """Show what is past its expiry; with act, end it. 12 when something could not be ended."""
    if cloud and cloud not in CLOUDS:
        raise SpecError(f"there is no cloud {cloud!r}", where="--cloud", fix=f"One of: {', '.join(CLOUDS)}.")
    clouds = open_clouds([cloud] if cloud else CLOUDS, os.environ)
    grace_s = _read_grace(os.environ)
    findings = find_expired(clouds, time.time(), grace_s=grace_s, fetch_time=lambda name: fetch_time(clouds[name]))
    for name, reason in findings.skipped.items():
        WORDS.print(f"{name} was not looked at: {reason}", style="yellow", markup=False)
    for each in findings.left_alone:
        WORDS.print(f"{each.cloud} {each.id} ({each.name}) is left alone: {each.reason}", style="yellow", markup=False)
    reaped = None
    if act and findings.expired:
        reaped = reap(
            findings,
            clouds,
            clock=SystemClock(),
            on_event=lambda _e, text, _d: WORDS.print(text, markup=False),
            waits=choose_waits(list(clouds)),
            grace_s=grace_s,
        )
    if as_json:
        print_data({"findings": findings, "reaped": reaped})
    else:
        _print_findings(findings.expired, act, looked_at=[name for name in clouds if name not in findings.skipped])
    if reaped is not None and reaped.left:
        return ReleaseError.exit_code
    # A schedule that can look at no account must not report that all is well.
    rented = {name for name in clouds if name != "local"}
    return CredentialError.exit_code if rented and rented <= set(findings.skipped) else 0


def fetch_time(cloud: Cloud) -> float | None:
    """The cloud's own time where it tells: a clock of ours that is ahead would end machines of leases that still run."""
    return cloud.server_time() if isinstance(cloud, TimedCloud) else None


def _read_grace(environ: Mapping[str, str]) -> float:
    """Seconds past its expiry until a machine is reaped; $LEASEHOLD_REAP_GRACE_S overrides ours."""
    given = environ.get("LEASEHOLD_REAP_GRACE_S", "").strip()
    try:
        return max(0.0, float(given)) if given else GRACE_S
    except ValueError as error:
        fix = "Write a number of seconds, for example 600."
        raise SpecError(f"{given!r} is no number", where="LEASEHOLD_REAP_GRACE_S", fix=fix) from error


def _print_findings(expired: object, act: bool, *, looked_at: Sequence[str]) -> None:
    leftovers = list(expired) if isinstance(expired, (list, tuple)) else []
    if not leftovers:
        WORDS.print(f"nothing is past its lease (looked at: {', '.join(looked_at) or 'no cloud'})", style="green")
        return
    narrow = []
    table = make_table("cloud", "kind", "id", "name", "expired", "USD/h")
    for each in leftovers:
        expired_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.expires_at))
        price = f"{each.price_usd_per_hour:.2f}" if each.kind == "machine" else ""
        table.add_row(each.cloud, each.kind, each.id, each.name, expired_at, price)
        cost = f", {price} USD/h" if price else ""
        words = f"{each.cloud} {each.kind} {each.id} {each.name}, expired {expired_at}{cost}"
        narrow.append(Paragraph(words, margin=0))
    print_table(Fitting(table, Group(*narrow)))
    if not act:
        WORDS.print("Nothing was touched; ./inv reap --yes ends these.")
