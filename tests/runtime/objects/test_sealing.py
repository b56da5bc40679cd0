"""Results reach S3 while the dispatcher works; what S3 does never stops it, another owner does; a lost computer loses little."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.objects.output_prefix import InputObject, OutputPrefix, Owner, OwnerLost, save_claim
from runtime.objects.prefix_results import deliver_files
from runtime.objects.sealing import load_sealed, seal_lines
from runtime.resuming.adoption import adopt_results
from runtime.resuming.takeover import claim_prefix, rebuild_run
from tests.runtime.conftest import ENDPOINT, Bench, Engines, Results, wait_until
from tests.runtime.object_service import Asked, ObjectService, serve_objects

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shared_service() -> Iterator[ObjectService]:
    with serve_objects() as service:
        yield service


@pytest.fixture
def service(shared_service: ObjectService, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectService]:
    for name, value in shared_service.environment.items():
        monkeypatch.setenv(name, value)
    yield shared_service
    shared_service.proxy.judge = lambda _asked: None


@pytest.fixture
def prefix(service: ObjectService) -> OutputPrefix:
    return OutputPrefix(service.open(f"s3://{service.make_bucket()}/out"))


def claim(prefix: OutputPrefix, folder: Path, run: str) -> Owner:
    """Become the owner, as a run does when it starts, with what is in its folder already."""
    folder.mkdir(exist_ok=True)
    source = InputObject(address="s3://elsewhere/in.jsonl", size=1, etag='"e"')
    claim = claim_prefix(prefix, prefix.load_owner(), run=run, source=source, plan=b"{}", prepared=folder)
    save_claim(folder, claim)
    return claim.owner


def read_sealed(prefix: OutputPrefix, owner: Owner, name: str = "output.jsonl") -> list[dict[str, Any]]:
    lines = []
    for facts in prefix.list_parts(owner, name):
        data = b"".join(prefix.store.read_whole(facts))
        assert data.endswith(b"}\n")
        lines += [json.loads(line) for line in data.splitlines()]
    return lines


def read_ids(lines: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in lines]


def take_over(prefix: OutputPrefix, owner: Owner, bench: Bench, folder: Path, run: str) -> None:
    """The folder of a new run on another computer, from the prefix and the input alone."""
    old = folder.with_name(f"{folder.name}-old")
    old.mkdir()
    folder.mkdir()
    earlier = rebuild_run(prefix, owner, old, input_path=bench.input, endpoint=ENDPOINT, model="tiny", line_limit=0)
    adopt_results(earlier, folder, run=run, input_path=bench.input, endpoint=ENDPOINT, model="tiny", with_failures=True)


def test_everything_is_sealed_at_the_end_each_line_once(prefix: OutputPrefix, bench: Bench, engines: Engines) -> None:
    ids = bench.write_requests(200, lambda number: ["400"] if number % 50 == 7 else [])
    owner = claim(prefix, bench.output, "run-1")

    results = bench.run(engines.add().base_url, seal=True)

    assert results.ids == ids
    assert sorted(read_ids(read_sealed(prefix, owner))) == sorted(results.output)
    assert sorted(read_ids(read_sealed(prefix, owner, "error.jsonl"))) == sorted(results.error)


def test_results_are_there_while_the_run_goes_on(prefix: OutputPrefix, bench: Bench, engines: Engines) -> None:
    bench.write_requests(400)
    owner = claim(prefix, bench.output, "run-1")
    process = bench.start(engines.add(delay_s=0.1, slots=4).base_url, seal=True)

    wait_until(lambda: prefix.list_parts(owner, "output.jsonl"), what="a part")

    assert process.poll() is None
    sealed = read_ids(read_sealed(prefix, owner))
    assert 0 < len(sealed) == len(set(sealed)) < 400


def test_a_dispatcher_that_was_killed_seals_on_where_it_was(
    prefix: OutputPrefix, bench: Bench, engines: Engines
) -> None:
    ids = bench.write_requests(300)
    owner = claim(prefix, bench.output, "run-1")
    engine = engines.add(delay_s=0.05, slots=4)
    process = bench.start(engine.base_url, seal=True)
    wait_until(
        lambda: (bench.output / "sealed.json").exists() and prefix.list_parts(owner, "output.jsonl"), what="a part"
    )
    process.kill()
    process.wait()
    before = {facts.key for facts in prefix.list_parts(owner, "output.jsonl")}
    engine.delay_s = 0.0

    results = bench.run(engine.base_url, seal=True)

    sealed = read_ids(read_sealed(prefix, owner))
    assert results.ids == ids == set(sealed)
    assert len(sealed) == 300
    assert before < {facts.key for facts in prefix.list_parts(owner, "output.jsonl")}


@pytest.mark.parametrize("dies_again", [False, True], ids=["at once", "by the one after it"])
def test_lines_that_a_recovery_has_moved_are_sealed_again(
    service: ObjectService, prefix: OutputPrefix, bench: Bench, engines: Engines, dies_again: bool
) -> None:
    ids = bench.write_requests(300)
    owner = claim(prefix, bench.output, "run-1")
    engine = engines.add(delay_s=0.05, slots=4)
    process = bench.start(engine.base_url, seal=True)
    wait_until(lambda: load_sealed(bench.output, owner)["output.jsonl"], what="a part")
    sealed = load_sealed(bench.output, owner)["output.jsonl"]
    part = bench.output / "output.jsonl.part"
    wait_until(lambda: part.stat().st_size > 1.2 * sealed, what="more than that")
    process.kill()
    process.wait()
    # As a power cut may leave it: what was sealed is gone, what was not is behind the damage.
    part.write_bytes(b"\0" * 100 + b"\n" + part.read_bytes()[sealed:])
    if dies_again:
        service.proxy.judge = lambda _asked: "503"
        process = bench.start(engine.base_url, seal=True)
        wait_until(lambda: part.read_bytes()[:1] == b"{", what="the recovery")
        process.kill()
        process.wait()
        service.proxy.judge = lambda _asked: None
    engine.delay_s = 0.0

    results = bench.run(engine.base_url, seal=True)

    assert results.ids == ids == set(read_ids(read_sealed(prefix, owner)))


def test_only_whole_lines_are_sealed_however_long_they_are(
    prefix: OutputPrefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.objects.sealing.PART_BYTES", 10)
    owner = claim(prefix, tmp_path / "run", "run-1")
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthree\n" + b"x" * 35 + b"\nfive\nsi")

    offsets = list(seal_lines(prefix, owner, "output.jsonl", path, 0, path.stat().st_size))

    assert offsets == [8, 14, 50, 55]
    parts = [b"".join(prefix.store.read_whole(facts)) for facts in prefix.list_parts(owner, "output.jsonl")]
    assert parts == [b"one\ntwo\n", b"three\n", b"x" * 35 + b"\n", b"five\n"]


def test_a_service_that_is_down_costs_the_batch_nothing(
    service: ObjectService, prefix: OutputPrefix, bench: Bench, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.dispatcher.dispatcher.PATIENCE", service.quick)
    monkeypatch.setattr("runtime.objects.sealing.LAST_WORD_S", 0.5)
    ids = bench.write_requests(200)
    owner = claim(prefix, bench.output, "run-1")
    service.proxy.judge = lambda _asked: "503"
    began = time.monotonic()

    results = bench.run(engines.add().base_url, seal=True)

    assert results.ids == ids
    assert time.monotonic() - began < 10
    events = (bench.output / "events.jsonl").read_text()
    assert events.count("sealing_failed") == 1 and "SlowDown" in events
    service.proxy.judge = lambda _asked: None
    assert prefix.list_parts(owner, "output.jsonl") == []


def test_a_busy_service_gets_everything_in_the_end(
    service: ObjectService, prefix: OutputPrefix, bench: Bench, engines: Engines
) -> None:
    def be_busy(asked: Asked) -> str | float | None:
        return "503" if asked.number % 2 else 0.05

    ids = bench.write_requests(200)
    owner = claim(prefix, bench.output, "run-1")
    service.proxy.judge = be_busy

    bench.run(engines.add(delay_s=0.05, slots=8).base_url, seal=True)

    service.proxy.judge = lambda _asked: None
    assert sorted(read_ids(read_sealed(prefix, owner))) == sorted(ids)


def test_a_first_writer_that_wakes_up_late_stops_and_changes_nothing(
    prefix: OutputPrefix, bench: Bench, engines: Engines, tmp_path: Path
) -> None:
    ids = bench.write_requests(400)
    first = claim(prefix, bench.output, "run-1")
    engine = engines.add(delay_s=0.1, slots=4)
    process = bench.start(engine.base_url, seal=True)
    wait_until(lambda: prefix.list_parts(first, "output.jsonl"), what="a part")
    process.send_signal(19)  # asleep
    take_over(prefix, first, bench, tmp_path / "second", "run-2")
    second = claim(prefix, tmp_path / "second", "run-2")
    taken = read_ids(read_sealed(prefix, second))
    of_first = [facts.key for facts in prefix.list_parts(first, "output.jsonl")]

    process.send_signal(18)
    code = process.wait(20)

    assert code == 1
    progress = bench.read_progress()
    assert progress is not None and progress.state == "failed"
    assert "this prefix has another owner now: run run-2" in progress.message
    assert "sealing_ended" in (bench.output / "events.jsonl").read_text()
    assert [facts.key for facts in prefix.list_parts(first, "output.jsonl")] == of_first
    assert taken and read_ids(read_sealed(prefix, second)) == taken
    engine.delay_s = 0.0
    bench.output = tmp_path / "second"
    assert bench.run(engine.base_url, run="run-2", seal=True).ids == ids


def test_a_run_goes_on_from_the_prefix_again_and_again(
    prefix: OutputPrefix, bench: Bench, engines: Engines, tmp_path: Path
) -> None:
    ids = bench.write_requests(900)
    engine = engines.add(delay_s=0.05, slots=8)
    owner = claim(prefix, bench.output, "run-0")
    sealed = 0
    for number in range(1, 3):
        process = bench.start(engine.base_url, run=owner.run, seal=True)
        wait_until(lambda: len(read_sealed(prefix, owner)) > sealed, what="more than was taken over")  # noqa: B023
        process.kill()
        process.wait()
        shutil.rmtree(bench.output)
        bench.output = tmp_path / f"computer-{number}"
        take_over(prefix, owner, bench, bench.output, f"run-{number}")
        owner = claim(prefix, bench.output, f"run-{number}")
        assert len(read_sealed(prefix, owner)) > sealed
        sealed = len(read_sealed(prefix, owner))
    engine.delay_s = 0.0

    results = bench.run(engine.base_url, run="run-2", seal=True)

    assert results.ids == ids
    final = Results(bench.output)
    assert set(final.output) == ids
    assert sorted(read_ids(read_sealed(prefix, owner))) == sorted(ids)
    assert sum(engine.answered.values()) < 2 * 900


def test_the_whole_files_of_a_late_writer_do_not_replace_the_owners(
    service: ObjectService, prefix: OutputPrefix, tmp_path: Path
) -> None:
    first = claim(prefix, tmp_path / "first", "run-1")
    (tmp_path / "late").write_bytes(b"late\n" * 4_000_000)
    (tmp_path / "good").write_bytes(b"good\n")
    none = tmp_path / "none"
    taken: list[Owner] = []

    def take_meanwhile(asked: Asked) -> None:
        if asked.is_part and not taken:
            taken.append(claim(prefix, tmp_path / "second", "run-2"))
            deliver_files(prefix, taken[0], tmp_path / "good", none)

    service.proxy.on_request = take_meanwhile
    with pytest.raises(OwnerLost):
        deliver_files(prefix, first, tmp_path / "late", none)
    service.proxy.on_request = lambda _asked: None
    with pytest.raises(OwnerLost):
        deliver_files(prefix, first, tmp_path / "late", none)

    assert taken
    found = prefix.store.read("output.jsonl")
    assert found is not None and found[0] == b"good\n"
    owner = prefix.load_owner()
    assert owner is not None and owner[0].mark == taken[0].mark
    assert owner[0].ended is not None and [facts.size for facts in owner[0].ended.results] == [5]


def test_a_run_without_an_output_leaves_its_parts_for_a_resume(prefix: OutputPrefix, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "output.jsonl.part").write_bytes(b"{}\n")
    owner = claim(prefix, folder, "run-1")
    deliver_files(prefix, owner, folder / "output.jsonl", folder / "error.jsonl")

    assert [facts.size for facts in prefix.list_parts(owner, "output.jsonl")] == [3]
    found = prefix.load_owner()
    assert found is not None and found[0].ended is not None and found[0].ended.results == ()


def test_whole_files_take_the_place_of_the_parts_and_of_an_older_error_file(
    prefix: OutputPrefix, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "output.jsonl.part").write_bytes(b"{}\n")
    (folder / "output.jsonl").write_bytes(b"{}\n{}\n")
    prefix.store.write("error.jsonl", b"of yesterday")
    owner = claim(prefix, folder, "run-1")
    deliver_files(prefix, owner, folder / "output.jsonl", folder / "error.jsonl")

    assert sorted(facts.key for facts in prefix.store.list("")) == [
        "out/_leasehold/1-run-1/plan.json",
        "out/_leasehold/owner.json",
        "out/output.jsonl",
    ]
