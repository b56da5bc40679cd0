"""What is installed, which credentials are set, whether each cloud answers: the checks behind `./inv doctor`."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Group
from rich.text import Text

from providers.access import AccessReport, check_access
from providers.open_clouds import open_clouds
from schemas.errors import LeaseholdError
from schemas.policy import Policy
from schemas.shown_path import show_path
from stacks.notifications.late_delivery import find_overdue
from stacks.notifications.target_check import check_targets
from stacks.policy.gate import load_policy_in_force
from stacks.run_folder import get_home
from stacks.terminal.console import print_data, print_table
from stacks.terminal.count_words import count_things
from stacks.terminal.paragraph import Paragraph
from toolchain.pulumi_cli import find_pulumi
from toolchain.version import find_version

Verdict = Literal["ok", "missing", "broken"]
_STYLES = {"ok": "green", "missing": "yellow", "broken": "red"}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at; needed ones that are not ok make `doctor` fail."""

    name: str
    verdict: Verdict
    detail: str
    needed: bool = True


def run_checks() -> list[Check]:
    """Every check; contacts the clouds whose keys are set."""
    return [
        Check(name="leasehold", verdict="ok", detail=str(find_version())),
        Check(name="python", verdict="ok", detail=f"{platform.python_version()} at {sys.executable}"),
        _check_ssh(),
        _check_pulumi(),
        _check_home(),
        _check_policy(),
        _check_notifications(),
        _check_cloud("local", ""),
        _check_cloud("runpod", "RUNPOD_API_KEY"),
        _check_cloud("lambda", "LAMBDA_CLOUD_API_KEY"),
    ]


def report_checks(*, as_json: bool) -> int:
    """Print every check; 1 when something that is needed is not there."""
    checks = run_checks()
    if as_json:
        print_data(checks)
    else:
        print_table(Group(*map(_render_check, checks)))
    return 1 if any(check.needed and check.verdict != "ok" for check in checks) else 0


def _render_check(check: Check) -> Paragraph:
    label = Text.assemble(f"{check.name:<11}", (f"{check.verdict:<9}", _STYLES[check.verdict]))
    return Paragraph(check.detail, label=label, margin=0)


def _check_ssh() -> Check:
    path = shutil.which("ssh")
    if path is None:
        return Check(name="ssh", verdict="missing", detail="install an OpenSSH client (openssh-client)")
    version = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10).stderr.strip()
    return Check(name="ssh", verdict="ok", detail=version)


def _check_pulumi() -> Check:
    pulumi = find_pulumi()
    if pulumi is None:
        return Check(name="pulumi", verdict="missing", detail="./inv sets it up at its next start")
    detail = f"{pulumi.version} ({pulumi.origin}), command plugin: {pulumi.plugin}"
    return Check(name="pulumi", verdict="ok", detail=detail)


def _check_home() -> Check:
    home = get_home()
    writable = os.access(home if home.exists() else _nearest(home), os.W_OK)
    verdict: Verdict = "ok" if writable else "broken"
    return Check(name="home", verdict=verdict, detail=str(home) if writable else f"{home} cannot be written")


def _check_policy() -> Check:
    """The policy in force; one that does not load stops every job."""
    try:
        policy = load_policy_in_force(os.environ)
    except LeaseholdError as error:
        return Check(name="policy", verdict="broken", detail=_join_lines(str(error)))
    if policy is None:
        return Check(name="policy", verdict="ok", detail="none in force: no policy.yaml beside Pulumi.yaml")
    rules = f"{count_things(len(policy.rules), 'rule')}: {', '.join(policy.rules)}" if policy.rules else "no rule"
    told = f"; tells {count_things(len(policy.notify), 'target')}" if policy.notify else ""
    return Check(name="policy", verdict="ok", detail=f"{show_path(policy.source)}, {rules}{told}")


def _check_notifications() -> Check:
    """Whom the environment and the policy tell, and what ended runs could not tell; an address that is none stops runs."""
    checked = check_targets(os.environ, policy=_load_policy())
    if checked.problems or checked.warnings:
        flaws = " ".join(_join_lines(str(each)) for each in (*checked.problems, *checked.warnings))
        return Check(name="notify", verdict="broken", detail=flaws, needed=bool(checked.problems))
    behind = find_overdue(get_home(), time.time())
    if behind:
        words = f"{count_things(len(behind), 'run')} could not tell all their news: ./inv notify tries again"
        return Check(name="notify", verdict="broken", detail=words, needed=False)
    whom = ", ".join(checked.labels)
    words = f"told about every run: {whom}" if whom else "nobody is told about every run; a job may name whom to tell"
    return Check(name="notify", verdict="ok", detail=words)


def _load_policy() -> Policy | None:
    with contextlib.suppress(LeaseholdError):  # which is told as a check of its own
        return load_policy_in_force(os.environ)
    return None


def _nearest(path: Path) -> Path:
    return next(each for each in path.parents if each.exists())


def _check_cloud(name: str, variable: str) -> Check:
    if variable and not os.environ.get(variable):
        return Check(name=name, verdict="missing", detail=f"{variable} is not set", needed=False)
    try:
        report = check_access(name, open_clouds([name])[name])
    except LeaseholdError as error:
        return Check(name=name, verdict="broken", detail=_join_lines(str(error)))
    if report.state == "ok":
        return Check(name=name, verdict="ok", detail=_describe_access(report))
    can = "; it may list machines, which is enough to release them" if report.can_list else ""
    said = report.message.rstrip(".")
    return Check(name=name, verdict="broken", detail=_join_lines(f"{said}{can}. {report.fix}".strip()))


def _describe_access(report: AccessReport) -> str:
    """What was seen to work; creating is not tried, since it would cost money."""
    ours = f"{count_things(report.machines, 'machine')} of ours" if report.machines else "no machine of ours"
    return f"answers: {count_things(report.offers, 'offer')} to be had, {ours}; listing and prices work, creating was not tried"


def _join_lines(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines())
