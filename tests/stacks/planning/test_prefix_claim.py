"""A run takes its output prefix before anything is rented, and no other run's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.objects.output_prefix import Ended, OutputPrefix
from schemas.errors import SpecError
from stacks.planning.plan import Plan
from stacks.planning.prefix_claim import claim_output, refuse_same_object, refuse_taken_prefix
from stacks.verbs.prefix_resume import read_left
from tests.runtime.object_service import ObjectService, serve_objects
from tests.stacks.run_files import make_job, make_offer, plan_for

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shared_service() -> Iterator[ObjectService]:
    with serve_objects() as service:
        yield service


@pytest.fixture
def prefix(shared_service: ObjectService, monkeypatch: pytest.MonkeyPatch) -> OutputPrefix:
    for name, value in shared_service.environment.items():
        monkeypatch.setenv(name, value)
    return OutputPrefix(shared_service.open(f"s3://{shared_service.make_bucket()}/out"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"{}\n")
    return path


def make(prefix: OutputPrefix, source: Path, run: str, **fields: Any) -> Plan:
    job = make_job(input=str(source), output=f"{prefix.address}/")
    return msgspec.structs.replace(plan_for(make_job(), make_offer()), run=run, job=job, **fields)


def test_a_claim_has_all_that_a_resume_elsewhere_needs(prefix: OutputPrefix, source: Path, tmp_path: Path) -> None:
    plan = make(prefix, source, "first")
    claim = claim_output(plan)

    assert claim is not None and claim.owner.epoch == 1
    (tmp_path / "old").mkdir()
    left = read_left(f"{prefix.address}/", tmp_path / "old")
    assert left.owner == claim.owner
    assert left.plan.job.input == f"{prefix.address}/_leasehold/1-first/input.jsonl"
    assert (left.plan.job.output, left.plan.template) == (f"{prefix.address}/", plan.template)
    stored = prefix.store.read("_leasehold/1-first/input.jsonl")
    assert stored is not None and stored[0] == b"{}\n"
    assert json.loads((prefix.store.read("_leasehold/1-first/plan.json") or (b"",))[0])["run"] == "first"


def test_a_prefix_whose_run_has_not_ended_is_refused_with_what_to_do(prefix: OutputPrefix, source: Path) -> None:
    claim_output(make(prefix, source, "first"))
    second = make(prefix, source, "second")

    for refuse in (lambda: refuse_taken_prefix(second.job), lambda: claim_output(second)):
        with pytest.raises(SpecError, match=r"run first on .* has not ended") as caught:
            refuse()
        assert f"./inv resume {prefix.address}/" in caught.value.fix


def test_a_run_that_goes_on_from_the_owner_takes_its_place(prefix: OutputPrefix, source: Path) -> None:
    claim_output(make(prefix, source, "first"))
    claim = claim_output(make(prefix, source, "second", resumes="first"))

    assert claim is not None and claim.owner.epoch == 2
    with pytest.raises(SpecError, match="run second"):
        claim_output(make(prefix, source, "third", resumes="first"))


def test_after_the_end_a_new_run_may_begin(prefix: OutputPrefix, source: Path) -> None:
    first = claim_output(make(prefix, source, "first"))
    assert first is not None
    prefix.end(first.owner, Ended(ended_at=time.time()))

    refuse_taken_prefix(make(prefix, source, "second").job)
    second = claim_output(make(prefix, source, "second"))

    assert second is not None and second.owner.epoch == 2


def test_an_output_on_this_computer_claims_nothing(tmp_path: Path) -> None:
    assert claim_output(plan_for(make_job(), make_offer())) is None


def test_results_over_the_input_are_refused() -> None:
    for name in ("output.jsonl", "error.jsonl"):
        with pytest.raises(SpecError, match="written over the input"):
            refuse_same_object(make_job(input=f"s3://b/out/{name}", output="s3://b/out/"))
    refuse_same_object(make_job(input="s3://b/out/in.jsonl", output="s3://b/out/"))


def test_a_prefix_where_nothing_was_written_cannot_be_resumed(prefix: OutputPrefix, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no run has written its results there"):
        read_left(f"{prefix.address}/", tmp_path)
