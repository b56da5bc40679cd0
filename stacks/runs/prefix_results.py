"""Brings the results, the receipt and the status of a run to its S3 prefix. Called by collecting."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from runtime.objects.object_settings import ObjectAddress, parse_address
from runtime.objects.output_prefix import load_claim, save_claim
from runtime.objects.prefix_results import deliver_files
from schemas.errors import LeaseholdError
from stacks.planning.object_access import open_prefix
from stacks.run_folder import RunFolder


def deliver_results(folder: RunFolder) -> None:
    """Both files, whole; raises OwnerLost when another run owns the prefix by now."""
    claim = load_claim(folder.root)
    ended = deliver_files(open_prefix(claim.prefix), claim.owner, folder.output, folder.errors)
    # So that what is in S3 can be told without asking there.
    save_claim(folder.root, msgspec.structs.replace(claim, owner=msgspec.structs.replace(claim.owner, ended=ended)))


def name_delivered(folder: RunFolder) -> dict[str, str]:
    """Where the results files of a run are in S3, by their names; none before they are there."""
    with contextlib.suppress(LeaseholdError):
        owner = load_claim(folder.root).owner
        address = parse_address(load_claim(folder.root).prefix)
        found = owner.ended.results if owner.ended else ()
        return {Path(each.key).name: str(ObjectAddress(address.bucket, each.key)) for each in found}
    return {}


def deliver_records(folder: RunFolder) -> None:
    """Receipt and status, once they are written; raises OwnerLost when another run owns the prefix by now."""
    claim = load_claim(folder.root)
    prefix = open_prefix(claim.prefix)
    prefix.raise_if_lost(claim.owner)
    for path in (folder.receipt, folder.status):
        if path.exists():
            prefix.store.write(path.name, msgspec.json.format(path.read_bytes()))
