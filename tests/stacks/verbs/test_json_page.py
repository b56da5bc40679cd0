"""docs/json.md says what `--json` prints: it is made from the records, and what commands print has these keys."""

from __future__ import annotations

import re

import msgspec

from schemas.status import Status
from stacks.run_folder import PROJECT
from stacks.verbs.json_page import COMMANDS, PAGE, render_json_page


def test_the_page_is_up_to_date() -> None:
    assert (PROJECT / PAGE).read_text(encoding="utf-8") == render_json_page(), "run ./inv schema --page"


def test_every_key_of_every_record_is_on_the_page() -> None:
    page = render_json_page()

    for kind, _ in COMMANDS.values():
        section = re.search(rf"^## {kind.__name__}$(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
        assert section is not None, kind
        printed = [field.encode_name for field in msgspec.structs.fields(kind)]
        assert printed
        assert [key for key in printed if f"| `{key}` |" not in section[1]] == []


def test_a_status_prints_the_keys_of_its_section() -> None:
    printed = msgspec.json.decode(msgspec.json.encode(Status(run="a", job="a", state="queued")))

    section = render_json_page().split("## Status\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(printed)


def test_every_link_leads_to_a_record() -> None:
    page = render_json_page()
    headings = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.MULTILINE)}

    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= headings
