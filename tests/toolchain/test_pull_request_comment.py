"""One comment a pull request, edited and never repeated, over real HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.fake_github import TOKEN, FakeGitHub
from toolchain import pull_request_comment
from toolchain.pull_request_comment import MARKER, main


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    made = FakeGitHub()
    yield made
    made.close()


def put(github: FakeGitHub, text: str, **changes: str) -> int:
    environ = {
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_REPOSITORY": "acme/jobs",
        "GITHUB_API_URL": github.url,
        "PULL_REQUEST": "5",
        "COMMENT": text,
    }
    return main({name: value for name, value in (environ | changes).items() if value})


def test_the_first_time_a_comment_is_written_and_then_edited(github: FakeGitHub) -> None:
    github.add("hello")

    assert put(github, "one") == put(github, "two") == 0

    assert [each["body"] for each in github.comments] == ["hello", f"{MARKER}\ntwo"]


def test_it_is_found_behind_many_others(github: FakeGitHub) -> None:
    for number in range(250):
        github.add(f"comment {number}")
    put(github, "one")

    put(github, "two")

    assert len(github.comments) == 251
    assert github.comments[-1]["body"] == f"{MARKER}\ntwo"


def test_what_a_person_wrote_is_left_alone_even_with_the_marker(github: FakeGitHub) -> None:
    github.add(f"{MARKER}\nmine")

    put(github, "one")

    assert [each["body"] for each in github.comments] == [f"{MARKER}\nmine", f"{MARKER}\none"]


def test_a_text_that_is_too_long_is_cut(github: FakeGitHub) -> None:
    put(github, "x" * 70_000)

    assert 60_000 < len(github.comments[0]["body"]) < 65_536


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"GITHUB_TOKEN": "wrong"}, 1, "GitHub answered 403"),
        ({"GITHUB_API_URL": "http://127.0.0.1:9"}, 1, "cannot be reached"),
        ({"PULL_REQUEST": ""}, 2, "PULL_REQUEST is not set"),
    ],
)
def test_what_goes_wrong_is_said_without_the_token(
    github: FakeGitHub, capsys: pytest.CaptureFixture[str], changes: dict[str, str], code: int, words: str
) -> None:
    assert put(github, "one", **changes) == code

    said = capsys.readouterr().err
    assert words in said and TOKEN not in said and "wrong" not in said
    assert github.comments == []


def test_it_needs_no_package() -> None:
    """It runs in a job that installs nothing."""
    source = Path(pull_request_comment.__file__).read_text()
    names = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}

    assert names <= sys.stdlib_module_names


def test_a_comment_of_an_account_that_is_gone_is_passed_over(github: FakeGitHub) -> None:
    github.add("hello")["user"] = None

    assert put(github, "one") == 0
    assert [each["body"] for each in github.comments] == ["hello", f"{MARKER}\none"]
