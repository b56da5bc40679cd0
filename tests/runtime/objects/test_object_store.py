"""Objects in a real S3 server's hands: conditions, streams, and what happens when the service is slow, busy or wrong."""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.objects.object_store import ObjectStore, Patience
from schemas.errors import CloudError, CredentialError, LeaseholdError, SpecError
from tests.runtime.object_service import Asked, ObjectService, serve_objects

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def shared_service() -> Iterator[ObjectService]:
    with serve_objects() as service:
        yield service


@pytest.fixture
def service(shared_service: ObjectService) -> Iterator[ObjectService]:
    yield shared_service
    shared_service.proxy.judge = lambda _asked: None


@pytest.fixture
def store(service: ObjectService) -> ObjectStore:
    opened = service.open(f"s3://{service.make_bucket()}/some/prefix/")
    service.proxy.asked.clear()
    return opened


def make_file(path: Path, size: int) -> bytes:
    """A file that is nowhere like itself; its hash."""
    block = hashlib.sha256(str(size).encode()).digest() * 32
    with path.open("wb") as file:
        for number in range(size // 1024):
            file.write(number.to_bytes(8, "big") + block[8:])
        file.write(block[: size % 1024])
    return hash_file(path)


def hash_file(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_a_small_object_is_read_as_it_was_written(store: ObjectStore) -> None:
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"two")

    found = store.read("a/b.json")
    assert found is not None and found[0] == b"two"
    assert store.read("a") is None
    assert store.find("a/c.json") is None
    assert [facts.key for facts in store.list("a")] == ["some/prefix/a/b.json"]


def test_a_conditional_write_has_one_winner(store: ObjectStore) -> None:
    assert store.write_if("owner", b"first", etag=None)
    assert not store.write_if("owner", b"second", etag=None)
    found = store.read("owner")
    assert found is not None and found[0] == b"first"

    assert store.write_if("owner", b"third", etag=found[1])
    assert not store.write_if("owner", b"fourth", etag=found[1])
    last = store.read("owner")
    assert last is not None and last[0] == b"third"


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 20 * MIB + 17])
def test_a_file_comes_back_whole(store: ObjectStore, tmp_path: Path, size: int) -> None:
    digest = make_file(tmp_path / "up", size)

    facts = store.upload(tmp_path / "up", "data")
    store.download(facts, tmp_path / "down")

    assert facts.size == size
    assert hash_file(tmp_path / "down") == digest


def test_each_part_of_an_upload_carries_its_checksum(
    service: ObjectService, store: ObjectStore, tmp_path: Path
) -> None:
    make_file(tmp_path / "up", 20 * MIB)
    store.upload(tmp_path / "up", "data")

    assert len([asked for asked in service.proxy.asked if asked.is_part]) == 3
    parts = [service.proxy.headers[asked.number] for asked in service.proxy.asked if asked.is_part]
    assert all("x-amz-checksum-sha256" in headers for headers in parts)


def test_a_burst_of_slow_down_is_waited_out(service: ObjectService, store: ObjectStore, tmp_path: Path) -> None:
    digest = make_file(tmp_path / "up", 20 * MIB)
    service.proxy.judge = lambda asked: "503" if asked.number % 3 else None

    facts = store.upload(tmp_path / "up", "data")
    store.download(facts, tmp_path / "down")

    assert hash_file(tmp_path / "down") == digest
    assert len(service.proxy.asked) > 12


def test_a_multi_part_upload_that_the_server_lost_is_begun_anew(
    service: ObjectService, store: ObjectStore, tmp_path: Path
) -> None:
    digest = make_file(tmp_path / "up", 20 * MIB)
    ended: list[int] = []

    def end_once(asked: Asked) -> str | None:
        if asked.is_completion and not ended:
            ended.append(asked.number)
            return "no-upload"
        return None

    service.proxy.judge = end_once
    facts = store.upload(tmp_path / "up", "data")
    store.download(facts, tmp_path / "down")

    assert ended
    assert hash_file(tmp_path / "down") == digest


def test_the_lost_answer_of_a_completion_is_found_out(
    service: ObjectService, store: ObjectStore, tmp_path: Path
) -> None:
    make_file(tmp_path / "up", 9 * MIB)
    lost: list[int] = []

    def lose_once(asked: Asked) -> str | None:
        if asked.is_completion and not lost:
            lost.append(asked.number)
            return "lost"
        return None

    service.proxy.judge = lose_once

    assert store.upload(tmp_path / "up", "data").size == 9 * MIB
    assert lost


def test_a_cut_download_goes_on_where_it_was(service: ObjectService, store: ObjectStore, tmp_path: Path) -> None:
    digest = make_file(tmp_path / "up", 30 * MIB)
    facts = store.upload(tmp_path / "up", "data")
    service.proxy.asked.clear()
    service.proxy.judge = lambda asked: "cut" if asked.number == 1 else None
    store.download(facts, tmp_path / "down")
    whole = len(service.proxy.asked)
    with (tmp_path / "down").open("r+b") as file:
        file.truncate(20 * MIB)
    service.proxy.asked.clear()
    service.proxy.judge = lambda _asked: None
    store.download(facts, tmp_path / "down")

    assert hash_file(tmp_path / "down") == digest
    assert whole >= 5
    assert len(service.proxy.asked) == 2


def test_an_object_that_changes_while_it_is_read_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    make_file(tmp_path / "up", 9 * MIB)
    facts = store.upload(tmp_path / "up", "data")
    make_file(tmp_path / "up", 9 * MIB + 1024)
    store.upload(tmp_path / "up", "data")

    with pytest.raises(SpecError, match="has changed meanwhile"):
        store.download(facts, tmp_path / "down")


def test_what_the_check_before_the_end_raises_leaves_the_old_object(store: ObjectStore, tmp_path: Path) -> None:
    make_file(tmp_path / "up", 20 * MIB)
    store.write("data", b"old")

    def refuse() -> None:
        found = store.read("data")
        raise LeaseholdError(f"somebody else owns it now, and it is {found and found[0]!r}")

    with pytest.raises(LeaseholdError, match="owns it now, and it is b'old'"):
        store.upload(tmp_path / "up", "data", before_end=refuse)

    found = store.read("data")
    assert found is not None and found[0] == b"old"


def test_a_service_that_stays_busy_is_an_error_with_the_number_of_tries(
    service: ObjectService, store: ObjectStore
) -> None:
    service.proxy.judge = lambda _asked: "503"

    with pytest.raises(CloudError, match="SlowDown, after 5 tries") as caught:
        store.write("a", b"")

    assert "/some/prefix/a" in caught.value.where
    assert len(service.proxy.asked) == 5


def test_a_service_that_hangs_is_given_up_in_time(service: ObjectService) -> None:
    hasty = Patience(request_s=0.3, connect_s=0.3, tries=2, total_s=1, longest_pause_s=0.1)
    store = service.open(f"s3://{service.make_bucket()}/p", hasty)
    service.proxy.judge = lambda _asked: 1.5
    began = time.monotonic()

    with pytest.raises(CloudError):
        store.read("a")

    assert time.monotonic() - began < 3


def test_a_refusal_is_exit_3_and_shows_no_key(service: ObjectService, store: ObjectStore) -> None:
    service.proxy.judge = lambda _asked: "403"

    with pytest.raises(CredentialError, match="access is denied") as caught:
        store.read("a")

    assert "sesame" not in str(caught.value)
    assert len(service.proxy.asked) == 1


def test_a_missing_bucket_and_a_missing_object_are_told_apart(service: ObjectService, store: ObjectStore) -> None:
    with pytest.raises(SpecError, match="no such bucket"):
        service.open("s3://no-such-bucket-here/p").require("a")
    with pytest.raises(SpecError, match="no such bucket"):
        service.open("s3://no-such-bucket-here/p").read("a")
    with pytest.raises(SpecError, match="no such object"):
        store.require("a")


def test_deleting_what_is_gone_is_done(store: ObjectStore) -> None:
    store.write("a", b"")
    store.delete(["a"])
    store.delete(["a"])

    assert list(store.list("")) == []


def test_a_large_upload_and_download_need_little_memory(store: ObjectStore, tmp_path: Path) -> None:
    make_file(tmp_path / "up", 64 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    facts = store.upload(tmp_path / "up", "data")
    store.download(facts, tmp_path / "down")

    # The proxy of this test is in this process too, and holds one part for each request in flight.
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 110
    assert (tmp_path / "down").stat().st_size == 64 * MIB


@pytest.mark.parametrize(
    "variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"]
)
def test_what_a_workflow_sets_to_nothing_is_not_set_for_the_library_either(
    service: ObjectService, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The library reads these by itself; an empty address made it panic."""
    bucket = service.make_bucket()
    monkeypatch.setenv(variable, "")

    store = service.open(f"s3://{bucket}/a/")
    store.write("b.json", b"one")

    found = store.read("b.json")
    assert found is not None and found[0] == b"one"
    assert variable not in os.environ
