"""Takes a prefix in S3 over: rebuilds the folder of the run that owned it, and makes another run its owner.

Called by `run` and `resume`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runtime.batch.input_index import open_input
from runtime.batch.journal import ERROR, OUTPUT
from runtime.objects.object_store import ObjectFacts
from runtime.objects.output_prefix import Claim, InputObject, OutputPrefix, Owner, make_owner
from runtime.objects.sealing import save_sealed, seal_lines
from runtime.resuming.adoption import INDEX, EarlierRun


def rebuild_run(
    prefix: OutputPrefix, owner: Owner, folder: Path, *, input_path: Path, endpoint: str, model: str, line_limit: int
) -> EarlierRun:
    """Fill the empty folder with the results and the index of the run that owned the prefix; input_path is its own input.

    The results are the whole files where it came to an end, else what was sealed of them.
    """
    with contextlib.closing(
        open_input(input_path, folder / INDEX, endpoint=endpoint, model=model, line_limit=line_limit)
    ):
        pass
    whole = {Path(each.key).name: each for each in owner.ended.results} if owner.ended else {}
    for name in (OUTPUT, ERROR):
        if whole:
            sources, path = ([whole[name]] if name in whole else []), folder / name
        else:
            sources, path = prefix.list_parts(owner, name), folder / f"{name}.part"
        if sources:
            _fetch(prefix, sources, path)
    return EarlierRun(run=owner.run, folder=folder)


def claim_prefix(
    prefix: OutputPrefix,
    before: tuple[Owner, str] | None,
    *,
    run: str,
    source: InputObject | Path,
    plan: bytes,
    prepared: Path | None = None,
) -> Claim:
    """Become the owner in place of who was found before, with everything there that a later resume needs.

    source: the input; a file is put into the prefix. prepared: the new run's folder with what it has from an earlier run.
    Raises SpecError when somebody else was faster.
    """
    unknown = InputObject(address="", size=0, etag="")
    owner = make_owner(run=run, input=unknown, before=before[0] if before else None)
    given = _upload_input(prefix, owner, source) if isinstance(source, Path) else source
    owner = msgspec.structs.replace(owner, input=given)
    prefix.store.write(prefix.plan_key(owner), plan)
    if prepared is not None:
        seal_taken_over(prefix, owner, prepared)
    prefix.take(owner, before)
    return Claim(prefix=str(prefix.address), owner=owner)


def seal_taken_over(prefix: OutputPrefix, owner: Owner, folder: Path) -> None:
    """Seal what a new run has from an earlier one, before it claims the prefix: each epoch's parts are all that it needs."""
    offsets = {OUTPUT: 0, ERROR: 0}
    for name in offsets:
        path = folder / f"{name}.part"
        if path.exists():
            for offset in seal_lines(prefix, owner, name, path, 0, path.stat().st_size, is_claimed=False):
                offsets[name] = offset
    save_sealed(folder, owner, offsets)


def _upload_input(prefix: OutputPrefix, owner: Owner, path: Path) -> InputObject:
    key = f"{owner.folder}/input.jsonl"
    facts = prefix.store.upload(path, key)
    return InputObject(address=str(prefix.store.address(key)), size=facts.size, etag=facts.etag)


def _fetch(prefix: OutputPrefix, sources: list[ObjectFacts], path: Path) -> None:
    with path.open("xb") as file:
        for data in _read_all(prefix, sources):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_all(prefix: OutputPrefix, sources: list[ObjectFacts]) -> Iterator[memoryview]:
    for source in sources:
        yield from prefix.store.read_whole(source)
