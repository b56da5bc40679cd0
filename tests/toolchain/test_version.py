from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from schemas.version import LeaseholdVersion
from toolchain.version import find_version

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *author, *words], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.py").write_text("a = 1\n")
    git(folder, "add", "a.py")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_checkout_is_told_by_its_commit_and_by_whether_it_was_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "results.jsonl").write_text("not tracked\n")
    clean = find_version(checkout)
    (checkout / "a.py").write_text("a = 2\n")
    changed = find_version(checkout)

    assert (clean.commit, clean.is_changed) == (commit, False)
    assert str(clean).endswith(f" (commit {commit[:12]})")
    assert (changed.commit, changed.is_changed) == (commit, True)
    assert str(changed).endswith(f" (commit {commit[:12]}, with changes)")
    assert clean.version not in ("", "unknown")


def test_what_a_git_hook_sets_leads_nowhere_else(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))

    assert find_version(checkout).commit


def test_without_a_checkout_or_without_git_the_version_is_all_that_is_told(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = find_version(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert (plain.commit, plain.is_changed) == ("", None)
    assert str(plain) == plain.version
    assert find_version(checkout) == plain


def test_a_checkout_that_git_cannot_read_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere\n")

    assert find_version(tmp_path).commit == ""


def test_where_git_tells_a_commit_and_no_changes_that_is_said() -> None:
    assert str(LeaseholdVersion(version="1", commit="abc")) == "1 (commit abc, perhaps with changes)"
