"""A run's place in S3: who owns the prefix, and where its parts, its plan and its results are. Used by sealing, `run`, `resume`.

    <prefix>/output.jsonl, error.jsonl, receipt.json, status.json      at the end
    <prefix>/_leasehold/owner.json                                     the live epoch
    <prefix>/_leasehold/<epoch>-<run>/plan.json, input.jsonl, parts/<file>-<offset>.jsonl

Every take-over raises the epoch and has a folder of its own, so that a writer which wakes up late writes where nobody reads.
"""

from __future__ import annotations

import socket
import time
import uuid
from pathlib import Path

import msgspec

from runtime.objects.object_store import ObjectFacts, ObjectStore
from schemas.errors import LeaseholdError, SpecError
from schemas.files import replace_file

VERSION = 1
CLAIM_FILE = "claim.json"
OUR_FOLDER = "_leasehold"
_OWNER = f"{OUR_FOLDER}/owner.json"
_OFFSET_DIGITS = 14


class InputObject(msgspec.Struct, frozen=True, kw_only=True):
    """The input as it was when it was planned: another etag or size is another input."""

    address: str
    size: int
    etag: str


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How an owner left the prefix; results: output.jsonl and error.jsonl as it wrote them, none when the batch broke off."""

    ended_at: float
    results: tuple[ObjectFacts, ...] = ()


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """owner.json. mark: drawn anew for every claim, so that two computers never take each other's for their own."""

    version: int = VERSION
    epoch: int
    run: str
    host: str
    mark: str
    taken_at: float
    input: InputObject
    ended: Ended | None = None

    @property
    def folder(self) -> str:
        """Where this epoch's own objects are, below the prefix."""
        return f"{OUR_FOLDER}/{self.epoch}-{self.run}"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """claim.json in a run's folder: the prefix, and this run as its owner."""

    version: int = VERSION
    prefix: str
    owner: Owner


class OwnerLost(LeaseholdError):
    """Another run owns the prefix now: nothing more may be written there."""


class OutputPrefix:
    """One prefix, with the store that reaches it."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.address = store.root

    def load_owner(self) -> tuple[Owner, str] | None:
        """The owner and its etag; None when nobody has ever owned this prefix."""
        found = self.store.read(_OWNER)
        if found is None:
            return None
        where = str(self.store.address(_OWNER))
        try:
            owner = msgspec.json.decode(found[0], type=Owner)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SpecError(f"it cannot be read: {error}", where=where, fix="Choose another prefix.") from error
        if owner.version != VERSION:
            raise SpecError(f"this is version {owner.version}; this Leasehold reads {VERSION}", where=where)
        return owner, found[1]

    def take(self, owner: Owner, before: tuple[Owner, str] | None) -> None:
        """Become the owner in place of who was found before; raises SpecError when somebody else was faster."""
        self.store.write_if(_OWNER, msgspec.json.encode(owner), etag=before[1] if before else None)
        # Read back whatever was answered: a lost answer was perhaps a success, and some services ignore conditions.
        found = self.load_owner()
        if found is None or found[0] != owner:
            other = f"run {found[0].run} on {found[0].host}" if found else "somebody"
            raise SpecError(
                f"{other} took this prefix at the same moment",
                where=str(self.address),
                fix="Choose another prefix, or wait for its end.",
            )

    def raise_if_lost(self, owner: Owner) -> None:
        """Raise OwnerLost unless owner's epoch is the live one."""
        found = self.load_owner()
        if found is not None and (found[0].epoch, found[0].mark) == (owner.epoch, owner.mark):
            return
        other = (
            f"run {found[0].run} on {found[0].host} (epoch {found[0].epoch})" if found else "nobody: owner.json is gone"
        )
        raise OwnerLost(
            f"this prefix has another owner now: {other}; run {owner.run} (epoch {owner.epoch}) writes no more there",
            where=str(self.address),
            fix="Its results so far are in its own folder on its own computer.",
        )

    def end(self, owner: Owner, ended: Ended) -> None:
        """Write down how it ended; raises OwnerLost when another run is the owner."""
        self.raise_if_lost(owner)
        found = self.load_owner()
        if found is not None:
            self.store.write_if(_OWNER, msgspec.json.encode(msgspec.structs.replace(owner, ended=ended)), etag=found[1])
        self.raise_if_lost(owner)

    def part_key(self, owner: Owner, name: str, offset: int) -> str:
        """Where the lines of results file `name` from `offset` on are sealed."""
        return f"{owner.folder}/parts/{name.removesuffix('.jsonl')}-{offset:0{_OFFSET_DIGITS}d}.jsonl"

    def list_parts(self, owner: Owner, name: str) -> list[ObjectFacts]:
        """The sealed parts of a results file, in their order."""
        start = f"{name.removesuffix('.jsonl')}-"
        parts = self.store.list(f"{owner.folder}/parts")
        return sorted((each for each in parts if Path(each.key).name.startswith(start)), key=lambda each: each.key)

    def plan_key(self, owner: Owner) -> str:
        return f"{owner.folder}/plan.json"

    def clear(self, owner: Owner, *, with_parts: bool) -> None:
        """Remove what no later command needs: earlier epochs, and the parts once the whole is there.

        What belongs to a later epoch stays: whoever takes the prefix next brings it here before becoming the owner.
        """
        kept = {self._key_of(_OWNER), self._key_of(self.plan_key(owner)), _parse_key(owner.input.address)}
        own_parts = self._key_of(f"{owner.folder}/parts/")
        stale = [
            each.key
            for each in self.store.list(OUR_FOLDER)
            if each.key not in kept
            and self._read_epoch(each.key) <= owner.epoch
            and (with_parts or not each.key.startswith(own_parts))
        ]
        root = f"{self.address.key}/" if self.address.key else ""
        self.store.delete([key.removeprefix(root) for key in stale])

    def _read_epoch(self, key: str) -> int:
        """The epoch in whose folder an object is; 0 for what is in none."""
        epoch = key.removeprefix(self._key_of(f"{OUR_FOLDER}/")).partition("-")[0]
        return int(epoch) if epoch.isdecimal() else 0

    def _key_of(self, key: str) -> str:
        return self.store.address(key).key


def make_owner(*, run: str, input: InputObject, before: Owner | None) -> Owner:
    """The next owner of a prefix."""
    return Owner(
        epoch=before.epoch + 1 if before else 1,
        run=run,
        host=socket.gethostname(),
        mark=uuid.uuid4().hex,
        taken_at=time.time(),
        input=input,
    )


def save_claim(folder: Path, claim: Claim) -> None:
    replace_file(folder / CLAIM_FILE, msgspec.json.encode(claim), durable=True)


def load_claim(folder: Path) -> Claim:
    """Raises LeaseholdError when it is missing or torn."""
    try:
        return msgspec.json.decode((folder / CLAIM_FILE).read_bytes(), type=Claim)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LeaseholdError(f"cannot read it: {error}", where=str(folder / CLAIM_FILE)) from error


def _parse_key(address: str) -> str:
    return address.partition("://")[2].partition("/")[2]
