"""Puts the whole results of an owner into its prefix, once the batch is at its end. Called when a run is collected."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from runtime.batch.journal import ERROR, OUTPUT
from runtime.objects.object_store import ObjectFacts
from runtime.objects.output_prefix import Ended, OutputPrefix, Owner
from schemas.errors import CredentialError

# S3 copies that much well within the time of one request.
_MOST_COPIED_BYTES = 1024**3


def deliver_files(prefix: OutputPrefix, owner: Owner, output: Path, errors: Path) -> Ended:
    """Upload both files, then say in owner.json that they are whole; without an output the parts stay for a resume.

    Raises OwnerLost, and changes nothing that counts, when another run owns the prefix by now.
    """
    prefix.raise_if_lost(owner)
    found = []
    if output.exists():
        for name, path in ((OUTPUT, output), (ERROR, errors)):
            if path == output or (path.exists() and path.stat().st_size):
                found.append(_place(prefix, owner, path, name))
            else:
                # What an earlier run left there would be taken for this run's.
                prefix.store.delete([name])
    ended = Ended(ended_at=time.time(), results=tuple(found))
    prefix.end(owner, ended)
    # Keys without the right to delete are fine: what is left only takes room.
    with contextlib.suppress(CredentialError):
        prefix.clear(owner, with_parts=bool(found))
    return ended


def _place(prefix: OutputPrefix, owner: Owner, path: Path, name: str) -> ObjectFacts:
    """Put a file where users look for it, with nothing but one request between the check of the epoch and that.

    While a large file is sent another run may take the prefix over, so it is sent to this epoch's own folder first.
    """
    if path.stat().st_size > _MOST_COPIED_BYTES:
        return prefix.store.upload(path, name, before_end=lambda: prefix.raise_if_lost(owner))
    own = f"{owner.folder}/parts/whole-{name}"
    prefix.store.upload(path, own)
    prefix.raise_if_lost(owner)
    return prefix.store.copy(own, name)
