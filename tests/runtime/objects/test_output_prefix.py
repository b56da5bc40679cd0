"""Who owns a prefix: one winner, epochs that only rise, and a first writer that wakes up late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from runtime.objects.output_prefix import (
    Claim,
    Ended,
    InputObject,
    OutputPrefix,
    Owner,
    OwnerLost,
    load_claim,
    make_owner,
    save_claim,
)
from schemas.errors import LeaseholdError, SpecError
from tests.runtime.object_service import Asked, ObjectService, serve_objects

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]
INPUT = InputObject(address="s3://elsewhere/in.jsonl", size=1, etag='"e"')


@pytest.fixture(scope="module")
def shared_service() -> Iterator[ObjectService]:
    with serve_objects() as service:
        yield service


@pytest.fixture
def service(shared_service: ObjectService) -> Iterator[ObjectService]:
    yield shared_service
    shared_service.proxy.judge = lambda _asked: None


@pytest.fixture
def prefix(service: ObjectService) -> OutputPrefix:
    return OutputPrefix(service.open(f"s3://{service.make_bucket()}/out"))


def take(prefix: OutputPrefix, run: str) -> Owner:
    before = prefix.load_owner()
    owner = make_owner(run=run, input=INPUT, before=before[0] if before else None)
    prefix.take(owner, before)
    return owner


def test_each_owner_raises_the_epoch_and_the_one_before_finds_out(prefix: OutputPrefix) -> None:
    first = take(prefix, "first")
    prefix.raise_if_lost(first)
    second = take(prefix, "second")

    assert (first.epoch, second.epoch) == (1, 2)
    prefix.raise_if_lost(second)
    with pytest.raises(OwnerLost, match=r"run second on .* \(epoch 2\); run first \(epoch 1\) writes no more"):
        prefix.raise_if_lost(first)


def test_of_two_that_take_it_at_once_one_is_refused(prefix: OutputPrefix) -> None:
    before = prefix.load_owner()
    one, other = (make_owner(run=run, input=INPUT, before=None) for run in ("one", "other"))
    prefix.take(one, before)

    with pytest.raises(SpecError, match=r"run one on .* took this prefix at the same moment"):
        prefix.take(other, before)

    found = prefix.load_owner()
    assert found is not None and found[0] == one


def test_a_take_over_from_what_has_changed_meanwhile_is_refused(prefix: OutputPrefix) -> None:
    take(prefix, "first")
    stale = prefix.load_owner()
    assert stale is not None
    take(prefix, "second")

    with pytest.raises(SpecError, match="run second"):
        prefix.take(make_owner(run="third", input=INPUT, before=stale[0]), stale)


def test_a_take_whose_answer_is_lost_is_still_ours(service: ObjectService, prefix: OutputPrefix) -> None:
    def lose_first_write(asked: Asked) -> str | None:
        return "lost" if asked.method == "PUT" and not lost.append(asked) and len(lost) == 1 else None

    lost: list[Asked] = []
    service.proxy.judge = lose_first_write
    owner = take(prefix, "first")

    assert len(lost) >= 1
    prefix.raise_if_lost(owner)


def test_an_owner_that_was_replaced_cannot_say_that_it_has_ended(prefix: OutputPrefix) -> None:
    first = take(prefix, "first")
    second = take(prefix, "second")

    with pytest.raises(OwnerLost):
        prefix.end(first, Ended(ended_at=1.0))

    prefix.end(second, Ended(ended_at=2.0))
    found = prefix.load_owner()
    assert found is not None and found[0] == msgspec.structs.replace(second, ended=Ended(ended_at=2.0))
    prefix.raise_if_lost(second)


def test_a_removed_owner_file_ends_the_writing(prefix: OutputPrefix) -> None:
    owner = take(prefix, "first")
    prefix.store.delete(["_leasehold/owner.json"])

    with pytest.raises(OwnerLost, match=r"owner\.json is gone"):
        prefix.raise_if_lost(owner)


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b'{"version":99}'])
def test_an_owner_file_that_is_not_ours_is_refused(prefix: OutputPrefix, data: bytes) -> None:
    prefix.store.write("_leasehold/owner.json", data)

    with pytest.raises(SpecError, match="cannot be read"):
        prefix.load_owner()


def test_an_owner_of_another_version_is_refused(prefix: OutputPrefix) -> None:
    owner = make_owner(run="first", input=INPUT, before=None)
    prefix.store.write("_leasehold/owner.json", msgspec.json.encode(msgspec.structs.replace(owner, version=2)))

    with pytest.raises(SpecError, match="version 2"):
        prefix.load_owner()


def test_parts_belong_to_one_epoch_and_come_in_the_order_of_their_offsets(prefix: OutputPrefix) -> None:
    first, second = take(prefix, "same"), take(prefix, "same")
    for owner, offsets in ((first, (0,)), (second, (900, 0, 10_000))):
        for offset in offsets:
            prefix.store.write(prefix.part_key(owner, "output.jsonl", offset), f"{owner.epoch} {offset}".encode())
    prefix.store.write(prefix.part_key(second, "error.jsonl", 0), b"")

    texts = [prefix.store.read(facts.key.removeprefix("out/")) for facts in prefix.list_parts(second, "output.jsonl")]
    assert [text[0] for text in texts if text] == [b"2 0", b"2 900", b"2 10000"]


def test_clearing_keeps_what_a_later_resume_needs(prefix: OutputPrefix) -> None:
    first = take(prefix, "first")
    second = take(prefix, "second")
    second = msgspec.structs.replace(
        second, input=msgspec.structs.replace(INPUT, address=f"{prefix.address}/_leasehold/1-first/input.jsonl")
    )
    for key in (
        prefix.plan_key(first),
        f"{first.folder}/input.jsonl",
        prefix.plan_key(second),
        prefix.part_key(first, "output.jsonl", 0),
        prefix.part_key(second, "output.jsonl", 0),
        "output.jsonl",
    ):  # fmt: skip
        prefix.store.write(key, b"x")

    prefix.clear(second, with_parts=False)
    kept = [facts.key for facts in prefix.store.list("")]
    prefix.clear(second, with_parts=True)

    assert kept == [
        "out/_leasehold/1-first/input.jsonl",
        "out/_leasehold/2-second/parts/output-00000000000000.jsonl",
        "out/_leasehold/2-second/plan.json",
        "out/_leasehold/owner.json",
        "out/output.jsonl",
    ]
    assert [facts.key for facts in prefix.store.list("")] == [key for key in kept if "/parts/" not in key]


def test_what_the_next_owner_has_brought_already_is_not_tidied_away(prefix: OutputPrefix) -> None:
    first = take(prefix, "first")
    brought = ["_leasehold/2-next/parts/output-00000000000000.jsonl", "_leasehold/2-next/plan.json"]
    for key in [*brought, "_leasehold/1-beaten/plan.json", "_leasehold/11-later/plan.json"]:
        prefix.store.write(key, b"x")

    prefix.clear(first, with_parts=True)

    kept = [facts.key.removeprefix("out/") for facts in prefix.store.list("")]
    assert kept == ["_leasehold/11-later/plan.json", *brought, "_leasehold/owner.json"]


def test_a_claim_survives_its_file(tmp_path: Path) -> None:
    claim = Claim(prefix="s3://b/out", owner=make_owner(run="first", input=INPUT, before=None))
    save_claim(tmp_path, claim)

    assert load_claim(tmp_path) == claim
    (tmp_path / "claim.json").write_bytes(b"{")
    with pytest.raises(LeaseholdError, match="cannot read it"):
        load_claim(tmp_path)
