"""What `./inv doctor` says of the policy in force and of who is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacks.run_folder import get_home
from stacks.verbs.doctor import Check, run_checks
from tests.stacks.notifications.test_late_delivery import find_dead_address
from tests.stacks.notifications.test_notifier import make_status, plan_telling, tell_end
from tests.stacks.run_files import make_folder


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEASEHOLD_POLICY", "LEASEHOLD_NOTIFY_WEBHOOK", "LEASEHOLD_NOTIFY_SLACK", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def find_check(name: str) -> Check:
    (found,) = (check for check in run_checks() if check.name == name)
    return found


def test_the_policy_in_force_is_named_with_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text("version: 1\nmax_hours: 2\nclouds: [local]\n")
    monkeypatch.setenv("LEASEHOLD_POLICY", str(tmp_path / "rules.yaml"))

    check = find_check("policy")

    assert (check.verdict, check.detail) == ("ok", "rules.yaml, 2 rules: max_hours, clouds")


def test_a_policy_that_does_not_load_is_broken_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text("version: 1\nmax_hour: 2\n")
    monkeypatch.setenv("LEASEHOLD_POLICY", "rules.yaml")

    check = find_check("policy")

    assert (check.verdict, check.needed) == ("broken", True)
    assert "rules.yaml:2:1" in check.detail and "max_hour" in check.detail


def test_without_a_policy_that_is_said() -> None:
    assert find_check("policy").verdict == "ok"
    assert "none in force" in find_check("policy").detail


def test_a_wrong_address_is_broken_and_its_secret_part_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASEHOLD_NOTIFY_SLACK", "http://hooks.example.org/hidden-part")

    check = find_check("notify")

    assert (check.verdict, check.needed) == ("broken", True)
    assert "LEASEHOLD_NOTIFY_SLACK" in check.detail and "hidden-part" not in check.detail


def test_whoever_is_told_about_every_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_check("notify").detail == "nobody is told about every run; a job may name whom to tell"

    monkeypatch.setenv("LEASEHOLD_NOTIFY_WEBHOOK", "https://hooks.example.org/hidden-part")

    assert find_check("notify").detail == "told about every run: webhook hooks.example.org"


def test_news_that_nobody_has_got_is_said_with_what_to_do() -> None:
    folder = make_folder(get_home() / "runs")
    tell_end(folder, plan_telling(), make_status(), patience_s=0.1, LEASEHOLD_NOTIFY_WEBHOOK=find_dead_address())

    check = find_check("notify")

    assert (check.verdict, check.needed) == ("broken", False)
    assert check.detail == "1 run could not tell all their news: ./inv notify tries again"
