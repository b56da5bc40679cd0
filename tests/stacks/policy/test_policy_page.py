"""The pages about policy and notifications show files that are right, with every key that there is."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import msgspec

from schemas.notification import Notification
from schemas.notify import Occasion
from schemas.policy import Policy, load_policy
from stacks.run_folder import PROJECT
from tests.schemas.spec_files import JOB, load

DOCS = PROJECT / "docs"


def find_example(page: str) -> str:
    (text,) = re.findall(r"```yaml\n(.+?)```", (DOCS / page).read_text(), re.DOTALL)
    return str(text)


def test_the_policy_of_the_page_has_every_rule(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(find_example("policy.md"))

    policy = load_policy(path)

    default = Policy(source="")
    same = [name for name in Policy.__struct_fields__ if getattr(policy, name) == getattr(default, name)]
    assert same == ["version"]


def test_the_list_of_the_notifications_page_fits_into_a_job(tmp_path: Path) -> None:
    targets = load(tmp_path, f"{JOB}{find_example('notifications.md')}").job.notify

    assert [each.type for each in targets] == ["webhook", "slack", "github"]


def test_the_notifications_page_names_every_event_and_every_key() -> None:
    page = (DOCS / "notifications.md").read_text()
    keys = [field.name for field in msgspec.structs.fields(Notification)]

    assert [each for each in (*typing.get_args(Occasion), *keys) if f"`{each}`" not in page] == []
