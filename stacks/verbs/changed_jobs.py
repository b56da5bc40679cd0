"""Which jobs a change touches, as git sees it: what `changed-jobs` prints for the workflows that plan and run them.

A job is a YAML or JSON file under jobs/, but not under a `templates` or `data` folder.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from schemas.errors import SpecError
from schemas.raw_spec import find_text
from schemas.yaml_source import load_document
from stacks.terminal.console import WORDS, print_data, print_text

_FOLDER = "jobs"
_SUFFIXES = (".yaml", ".yml", ".json")
_NOT_JOBS = {"templates", "data"}
_POLICY = "policy.yaml"
_TIMEOUT_S = 60


def report_changed_jobs(base: str, *, affected: bool, as_json: bool) -> None:
    """Print the jobs that differ from base, one a line; affected: also those whose input, template or policy does."""
    if set(base) == {"0"}:
        # A branch that is new has no state before; to take every job for new would run them all.
        WORDS.print("there was no commit before this one: no job counts as changed", style="yellow")
        found: list[str] = []
    else:
        root = _find_root()
        found = find_changed_jobs(root, _list_changed(root, base), affected=affected)
    if as_json:
        print_data(found)
    elif found:
        print_text("\n".join(found))


def find_changed_jobs(root: Path, changed: Collection[str], *, affected: bool) -> list[str]:
    """The jobs among the changed paths that still exist, sorted; with affected, those that use a changed file too.

    Raises SpecError for a job whose path could not be printed on a line of its own.
    """
    own = {path for path in changed if is_job(path) and (root / path).is_file()}
    if affected:
        own.update(path for path in _list_jobs(root) if _POLICY in changed or _uses(root, path, changed))
    for path in own:
        if not path.isprintable():
            raise SpecError("a job's path has characters that cannot be printed", where=ascii(path), fix="Rename it.")
    return sorted(own)


def is_job(path: str) -> bool:
    """Whether a path of the repository is where jobs are."""
    parts = PurePosixPath(path).parts
    return parts[:1] == (_FOLDER,) and path.endswith(_SUFFIXES) and not _NOT_JOBS & set(parts[1:-1])


def _list_jobs(root: Path) -> Iterator[str]:
    for path in sorted((root / _FOLDER).rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and is_job(name):
            yield name


def _uses(root: Path, job: str, changed: Collection[str]) -> bool:
    document = load_document(root / job).document
    if document is None:
        return False
    given = find_text(document.data, ("input",))
    template = find_text(document.data, ("template",)).partition("@")[0]
    return _is_among(root, job, given, changed) or (bool(template) and template in _list_templates(root, changed))


def _is_among(root: Path, job: str, given: str, changed: Collection[str]) -> bool:
    if not given or "://" in given:
        return False
    path = ((root / job).parent / given).resolve()
    return path.is_relative_to(root) and path.relative_to(root).as_posix() in changed


def _list_templates(root: Path, changed: Collection[str]) -> set[str]:
    """Names of the changed templates; one that is gone is taken to be called like its file."""
    names = set()
    for path in changed:
        if "templates" in PurePosixPath(path).parts[:-1] and path.endswith(_SUFFIXES):
            document = load_document(root / path).document
            names.add(find_text(document.data, ("name",)) if document else PurePosixPath(path).stem)
    return names


def _find_root() -> Path:
    return Path(_git(Path.cwd(), "rev-parse", "--show-toplevel").strip()).resolve()


def _list_changed(root: Path, base: str) -> Sequence[str]:
    """Paths that differ between HEAD and the commit where it left base, both names of a renamed file."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}").strip()
    listed = _git(root, "diff", "--name-only", "--no-renames", "-z", f"{commit}...HEAD")
    return [path for path in listed.split("\0") if path]


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # git knows paths as bytes, and some are no text
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise SpecError("git is not installed", fix="Install it: sudo apt install git") from error
    except subprocess.TimeoutExpired as error:
        what = f"git {arguments[0]} has not answered in {_TIMEOUT_S} s"
        raise SpecError(
            what, where=str(folder), fix="Try it by hand; it may wait for a lock or a network disk."
        ) from error
    if done.returncode != 0:
        words = done.stderr.strip().removeprefix("fatal: ").splitlines()
        fix = "Name a commit or branch that is here; a workflow's checkout needs `fetch-depth: 0`."
        if words and "not a git repository" in words[-1]:
            fix = "Go into a checkout: what has changed is what git sees there."
        what = words[-1] if words else f"there is no such commit here: {arguments[-1].partition('^')[0]}"
        raise SpecError(what, where=str(folder), fix=fix)
    return done.stdout
