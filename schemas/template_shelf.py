"""The templates of a folder by name and version, read no further than needed to choose one. Called by template."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import semver

from schemas.errors import Problem
from schemas.raw_spec import find_text
from schemas.spec_words import join_words, suggest
from schemas.yaml_source import load_document

_SUFFIXES = (".yaml", ".yml", ".json")


class ShelfEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says about itself."""

    path: Path
    name: str
    version: str
    status: str


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """What was found for one name; names: every file that could be a template, broken: problems of files about that name."""

    entries: tuple[ShelfEntry, ...]
    folders: tuple[Path, ...]
    broken: tuple[Problem, ...] = ()

    def pick(self, name: str, version: str, *, allow_draft: bool = False) -> Path | Problem:
        """The file of `name@version`, or of the highest active version of name."""
        if not self.entries:
            return self._explain_unknown(name)
        if version:
            return self._pick_exactly(name, version, allow_draft)
        usable = [
            entry for entry in self.entries if entry.status == "active" or (allow_draft and entry.status == "draft")
        ]
        if not usable:
            listed = join_words((f"{each.name}@{each.version} ({each.status})" for each in self.entries), last="and")
            fix = f"Name a version; there are {listed}."
            return _make_problem(f"template `{name}` has no active version", "no_active_template", fix)
        return max(usable, key=lambda entry: _rank_version(entry.version)).path

    def _pick_exactly(self, name: str, version: str, allow_draft: bool) -> Path | Problem:
        same = [entry for entry in self.entries if entry.version == version]
        if not same:
            guess = suggest(version, [entry.version for entry in self.entries])
            listed = join_words(sorted(entry.version for entry in self.entries), last="and")
            fix = f"Did you mean {name}@{guess}?" if guess else f"Versions: {listed}."
            return _make_problem(f"template `{name}` has no version {version}", "unknown_template", fix)
        if len(same) > 1:
            files = join_words((str(entry.path) for entry in same), last="and")
            return _make_problem(f"`{name}@{version}` stands in {files}", "repeated_template", "Keep one of them.")
        if same[0].status == "draft" and not allow_draft:
            fix = f"Set `status: active` in {same[0].path}, or ask for drafts."
            return _make_problem(f"template `{name}@{version}` is a draft", "draft_template", fix)
        return same[0].path

    def _explain_unknown(self, name: str) -> Problem:
        names = sorted({entry.name for path in _list_files(self.folders) for entry in _read_entry(path)[0]})
        guess = suggest(name, names)
        folders = join_words((str(each) for each in self.folders if each.is_dir()), last="and") or str(self.folders[0])
        fix = f"Did you mean `{guess}`?" if guess else f"There are: {', '.join(names) or 'none'}."
        return _make_problem(f"there is no template `{name}` in {folders}", "unknown_template", fix)


def read_shelf(folders: Sequence[Path], name: str) -> Shelf:
    """Every version of one template; the first folder that has any decides."""
    broken: list[Problem] = []
    for folder in folders:
        entries: list[ShelfEntry] = []
        for path in _list_files([folder]):
            # Most files are about other templates: look before parsing.
            if name.encode() in _read_bytes(path):
                found, problems = _read_entry(path)
                entries += [entry for entry in found if entry.name == name]
                broken += problems if path.stem.startswith(name) else ()
        if entries:
            return Shelf(entries=tuple(entries), folders=tuple(folders))
    return Shelf(entries=(), folders=tuple(folders), broken=tuple(broken))


def _list_files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        with contextlib.suppress(OSError):
            yield from sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _read_entry(path: Path) -> tuple[list[ShelfEntry], tuple[Problem, ...]]:
    loaded = load_document(path)
    if loaded.document is None:
        return [], loaded.problems
    name, version, status = (find_text(loaded.document.data, (key,)) for key in ("name", "version", "status"))
    return [ShelfEntry(path=path, name=name, version=version, status=status or "active")] if name else [], ()


def _rank_version(version: str) -> semver.Version:
    try:
        return semver.Version.parse(version.removeprefix("v"))
    except ValueError:
        return semver.Version(0)


def _make_problem(message: str, code: str, fix: str) -> Problem:
    return Problem(file="", message=message, code=code, fix=fix)
