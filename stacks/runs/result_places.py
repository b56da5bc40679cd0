"""Where a run's results are for the person who wanted them: at the job's `output:`, else in the run's folder.

Called by `results` and by the summary at a run's end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from runtime.objects.object_settings import is_object_address
from schemas.errors import LeaseholdError
from stacks.planning.plan import load_plan
from stacks.run_folder import RunFolder
from stacks.runs.prefix_results import name_delivered

_BLOCK_BYTES = 1 << 20


class ResultPlace(msgspec.Struct, frozen=True, kw_only=True):
    """One file of results: `place` is the path or s3:// address where the job wanted it, `path` the run's own file."""

    place: str
    path: Path
    lines: int
    bytes: int


def find_places(folder: RunFolder) -> Mapping[str, str]:
    """The path or address of output.jsonl and error.jsonl, by these names, as far as the run has them.

    A copy that a later run has replaced, or that is not there (yet), is none: then it is the run's own file.
    """
    own = {path.name: path for path in (folder.output, folder.errors) if path.exists()}
    wanted: Mapping[str, str] = {}
    with contextlib.suppress(LeaseholdError):  # without a plan they are in the run's folder
        output = load_plan(folder.plan).job.output
        wanted = name_delivered(folder) if is_object_address(output) else _find_copies(own, output)
    return {name: wanted.get(name, str(path)) for name, path in own.items()}


def list_results(folder: RunFolder) -> list[ResultPlace]:
    """What there is, answers first, with its size; reads the files once."""
    places = find_places(folder)
    return [
        ResultPlace(place=places[path.name], path=path, lines=_count_lines(path), bytes=path.stat().st_size)
        for path in (folder.output, folder.errors)
        if path.name in places
    ]


def _find_copies(own: Mapping[str, Path], output: str) -> dict[str, str]:
    copies = {}
    for name, path in own.items():
        with contextlib.suppress(OSError):
            copy = Path(output) / name
            if output and copy.stat().st_size == path.stat().st_size:
                copies[name] = str(copy)
    return copies


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK_BYTES), b""))
