"""Which jobs a change touches: their own files, what they use, and a real repository."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from schemas.errors import SpecError
from stacks.verbs.changed_jobs import find_changed_jobs, is_job, report_changed_jobs

JOB = "version: 1\nname: {name}\ninput: data/{name}.jsonl\ntemplate: {template}@v1.0.0\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two jobs with an input each, of two templates."""
    for folder in ("jobs/data", "jobs/templates", "jobs/nightly"):
        (tmp_path / folder).mkdir(parents=True)
    for name, place, template in (("a", "jobs/a.yaml", "small"), ("b", "jobs/nightly/b.yml", "large")):
        (tmp_path / place).write_text(JOB.format(name=name, template=template))
        (tmp_path / "jobs" / "templates" / f"{template}-1.yaml").write_text(f"name: {template}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("jobs/a.yaml", True),
        ("jobs/nightly/b.yml", True),
        ("jobs/a.json", True),
        ("jobs/templates/small.yaml", False),
        ("jobs/team/templates/small.yaml", False),
        ("jobs/data/x.json", False),
        ("jobs/a.jsonl", False),
        ("other/jobs/a.yaml", False),
        ("jobs.yaml", False),
    ],
)
def test_jobs_are_known_by_their_place(path: str, expected: bool) -> None:
    assert is_job(path) is expected


def test_jobs_of_which_the_file_changed_are_listed_and_those_that_are_gone_are_not(root: Path) -> None:
    changed = {"jobs/nightly/b.yml", "jobs/a.yaml", "jobs/gone.yaml", "README.md"}

    assert find_changed_jobs(root, changed, affected=False) == ["jobs/a.yaml", "jobs/nightly/b.yml"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("jobs/data/a.jsonl", ["jobs/a.yaml"]),
        ("jobs/nightly/data/b.jsonl", ["jobs/nightly/b.yml"]),
        ("jobs/templates/small-1.yaml", ["jobs/a.yaml"]),
        ("jobs/templates/large.yaml", ["jobs/nightly/b.yml"]),
        ("policy.yaml", ["jobs/a.yaml", "jobs/nightly/b.yml"]),
        ("jobs/data/other.jsonl", []),
    ],
)
def test_jobs_that_use_what_changed_are_affected(root: Path, changed: str, expected: list[str]) -> None:
    assert find_changed_jobs(root, {changed}, affected=True) == expected
    assert find_changed_jobs(root, {changed}, affected=False) == []


def test_a_job_that_cannot_be_read_is_changed_but_hides_no_other(root: Path) -> None:
    (root / "jobs" / "bad.yaml").write_text("{")

    changed = {"jobs/bad.yaml", "jobs/data/a.jsonl"}

    assert find_changed_jobs(root, changed, affected=True) == ["jobs/a.yaml", "jobs/bad.yaml"]


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_git_is_asked_for_what_this_branch_changed_and_not_for_what_the_other_did(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "jobs" / "data" / "a.jsonl").write_text("{}\n" * 20)
    (root / "jobs" / "c.yaml").write_text(JOB.format(name="a", template="none"))
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    git(root, "checkout", "-qb", "mine")
    (root / "jobs" / "with blank.yaml").write_text("version: 1\n")
    (root / "jobs" / "a.yaml").rename(root / "jobs" / "moved.yaml")
    (root / "jobs" / "data" / "a.jsonl").rename(root / "jobs" / "data" / "moved.jsonl")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "mine")
    git(root, "checkout", "-q", "main")
    (root / "jobs" / "nightly" / "b.yml").write_text("version: 2\n")
    git(root, "commit", "-qam", "theirs")
    git(root, "checkout", "-q", "mine")
    monkeypatch.chdir(root / "jobs" / "templates")

    report_changed_jobs("main", affected=False, as_json=False)
    as_text = capsys.readouterr().out
    report_changed_jobs("main", affected=False, as_json=True)
    as_data = capsys.readouterr().out
    report_changed_jobs("main", affected=True, as_json=True)

    assert as_text.splitlines() == ["jobs/moved.yaml", "jobs/with blank.yaml"]
    assert json.loads(as_data) == as_text.splitlines()
    # The input of c.yaml was moved away from it.
    assert json.loads(capsys.readouterr().out) == ["jobs/c.yaml", *as_text.splitlines()]
    with pytest.raises(SpecError, match="there is no such commit here: nowhere") as caught:
        report_changed_jobs("nowhere", affected=False, as_json=False)
    assert "fetch-depth: 0" in caught.value.fix
    with pytest.raises(SpecError):
        report_changed_jobs("--output=x", affected=False, as_json=False)
    assert not (root / "x").exists()


def test_before_the_first_commit_no_job_counts_as_changed(capsys: pytest.CaptureFixture[str]) -> None:
    report_changed_jobs("0" * 40, affected=True, as_json=True)

    assert json.loads(capsys.readouterr().out) == []


def test_outside_of_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    with pytest.raises(SpecError, match="not a git repository") as caught:
        report_changed_jobs("main", affected=False, as_json=False)

    assert "checkout" in caught.value.fix and "fetch-depth" not in caught.value.fix
    assert "fatal" not in caught.value.what


def test_paths_that_are_no_text_stop_nothing_but_a_job_with_one_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    git(root, "init", "-q", "-b", "main")
    git(root, "commit", "-qm", "base", "--allow-empty")
    (root / "jobs" / "templates" / "small-1.yaml").rename(root / os.fsdecode(b"notes-\xff.txt"))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "mine")
    monkeypatch.chdir(root)

    report_changed_jobs("HEAD~1", affected=True, as_json=True)

    assert json.loads(capsys.readouterr().out) == ["jobs/a.yaml", "jobs/nightly/b.yml"]
    for name in (b"x\xff.yaml", b"two\nlines.yaml"):
        odd = os.fsdecode(b"jobs/" + name)
        (root / odd).write_text("version: 1\n")
        with pytest.raises(SpecError, match="cannot be printed"):
            find_changed_jobs(root, {odd}, affected=False)
