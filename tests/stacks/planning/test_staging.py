"""An input in S3 comes to this computer once, before it is planned, and a changed one is noticed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from runtime.objects.object_store import ObjectStore
from schemas.errors import SpecError
from schemas.job import LoadedJob
from stacks.planning.planning import check_job_input
from stacks.planning.staging import fetch_input, keep_input, stage_job
from stacks.run_folder import RunFolder
from stacks.verbs.markdown_report import print_plan_markdown
from tests.runtime.object_service import ObjectService, serve_objects
from tests.stacks.run_files import make_job, make_offer, make_template, plan_for

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shared_service() -> Iterator[ObjectService]:
    with serve_objects() as service:
        yield service


@pytest.fixture
def store(shared_service: ObjectService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ObjectStore:
    for name, value in shared_service.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    shared_service.proxy.asked.clear()
    return shared_service.open(f"s3://{shared_service.make_bucket()}")


def load(store: ObjectStore, key: str = "in.jsonl") -> LoadedJob:
    return LoadedJob(job=make_job(input=str(store.address(key))), template=make_template())


def test_a_local_input_stays_where_it_is(store: ObjectStore) -> None:
    loaded = LoadedJob(job=make_job(), template=make_template())

    staged = stage_job(loaded)

    assert staged.loaded is loaded and staged.source is None
    plan = plan_for(make_job(), make_offer())
    assert staged.put_back(plan) is plan


def test_it_is_downloaded_once_and_linked_into_the_run(
    shared_service: ObjectService, store: ObjectStore, tmp_path: Path
) -> None:
    store.write("in.jsonl", b"one\n")
    staged = stage_job(load(store))
    again = stage_job(load(store))

    assert staged.source is not None and staged.source.size == 4
    assert Path(staged.loaded.job.input).read_bytes() == b"one\n"
    assert again.loaded.job.input == staged.loaded.job.input
    assert len([asked for asked in shared_service.proxy.asked if asked.method == "GET"]) == 1
    plan = staged.put_back(msgspec.structs.replace(plan_for(make_job(), make_offer()), job=staged.loaded.job))
    assert (plan.job.input, plan.staged) == (f"s3://{store.root.bucket}/in.jsonl", staged.source)
    folder = RunFolder(tmp_path / "run")
    folder.make()
    keep_input(plan, folder)
    assert folder.input.samefile(staged.loaded.job.input)


def test_bad_lines_are_told_by_the_address_that_the_job_names(store: ObjectStore) -> None:
    store.write("in.jsonl", b"{\n")
    staged = stage_job(load(store))

    report = staged.name_source(check_job_input(staged.loaded))

    address = f"s3://{store.root.bucket}/in.jsonl"
    assert (report.path, [problem.file for problem in report.problems]) == (address, [address])
    with pytest.raises(SpecError) as caught:
        report.raise_if_bad()
    assert "staging" not in str(caught.value)


def test_another_version_of_the_object_is_another_input(store: ObjectStore) -> None:
    store.write("in.jsonl", b"one\n")
    first = stage_job(load(store))
    store.write("in.jsonl", b"two\n")
    second = stage_job(load(store))

    assert Path(first.loaded.job.input).read_bytes() == b"one\n"
    assert Path(second.loaded.job.input).read_bytes() == b"two\n"


def test_an_input_that_is_not_what_was_planned_is_refused(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("in.jsonl", b"one\n")
    source = stage_job(load(store)).source
    assert source is not None
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "other"))
    store.write("in.jsonl", b"two\n")

    with pytest.raises(SpecError, match="has changed meanwhile"):
        fetch_input(source)


def test_what_nobody_has_asked_for_since_yesterday_is_cleared(store: ObjectStore) -> None:
    for key in ("old.jsonl", "new.jsonl"):
        store.write(key, key.encode())
    old = Path(stage_job(load(store, "old.jsonl")).loaded.job.input)
    os.utime(old.parent, (time.time() - 90_000,) * 2)

    new = Path(stage_job(load(store, "new.jsonl")).loaded.job.input)

    assert new.exists() and not old.parent.exists()


def test_a_missing_object_is_told_with_its_address(store: ObjectStore) -> None:
    with pytest.raises(SpecError, match="no such object") as caught:
        stage_job(load(store, "nothing.jsonl"))

    assert caught.value.where == f"s3://{store.root.bucket}/nothing.jsonl"


def test_a_plan_without_a_clouds_key_counts_what_the_keys_for_s3_can_read(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"model": "qwen2.5-7b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    store.write("in.jsonl", json.dumps(line).encode() + b"\n")
    job = tmp_path / "job.yaml"
    job.write_text(
        f"version: 1\nname: tickets\ninput: {store.address('in.jsonl')}\ntemplate: qwen2-5-7b@v1.0.0\n"
        "machines: {candidates: [{cloud: lambda, gpu: A10}]}\nlimits: {max_usd: 5, max_hours: 1}\n"
    )

    print_plan_markdown(job, line_limit=0)

    shown = capsys.readouterr().out
    assert "valid, without prices" in shown and "LAMBDA_CLOUD_API_KEY is not set" in shown
    assert "**1** requests" in shown
