"""Runs whose input and results are in S3, through the real engine; a lost computer's run goes on elsewhere."""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime.objects.object_store import ObjectStore
from tests.journeys.workshop import Workshop
from tests.runtime.object_service import ObjectService, serve_objects

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]
ONE = {"replicas": 1, "candidates": [{"cloud": "local"}]}


@pytest.fixture(scope="module")
def service() -> Iterator[ObjectService]:
    with serve_objects() as served:
        yield served


@pytest.fixture
def bucket(service: ObjectService, workshop: Workshop) -> str:
    workshop.environment |= service.environment
    return service.make_bucket()


@pytest.fixture
def elsewhere(service: ObjectService, workshop: Workshop, tmp_path: Path) -> Workshop:
    """Another computer, with the same keys and nothing else."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    other = Workshop(folder)
    other.mark = workshop.mark
    other.environment |= {**service.environment, "LEASEHOLD_TEST_MARK": workshop.mark}
    other.cloud = workshop.cloud
    other.environment["LEASEHOLD_LOCAL_CLOUD_DIR"] = str(workshop.cloud)
    return other


def put_input(store: ObjectStore, workshop: Workshop, *, lines: int, max_tokens: int = 8) -> None:
    path = workshop.folder / "source.jsonl"
    workshop.write_input(path, lines=lines, max_tokens=max_tokens)
    store.upload(path, "in.jsonl")
    path.unlink()


def read_json(store: ObjectStore, key: str) -> Any:
    found = store.read(key)
    return json.loads(found[0]) if found else None


def read_ids(store: ObjectStore, key: str) -> list[str]:
    found = store.read(key)
    assert found is not None, f"{key} is not there"
    return [json.loads(line)["custom_id"] for line in found[0].splitlines()]


def list_parts(store: ObjectStore) -> list[str]:
    return [facts.key for facts in store.list("out/_leasehold") if "/parts/" in facts.key]


def test_a_batch_goes_from_s3_to_s3_and_no_key_is_left_behind(
    service: ObjectService, workshop: Workshop, bucket: str
) -> None:
    store = service.open(f"s3://{bucket}/jobs")
    put_input(store, workshop, lines=60)
    job = workshop.write_job(input=f"s3://{bucket}/jobs/in.jsonl", output=f"s3://{bucket}/jobs/out/", machines=ONE)

    checked = workshop.inv("validate", str(job))
    done = workshop.inv("run", str(job), "--run", "cloudy", "--json")
    shown = workshop.inv("results", "cloudy")

    assert (checked.returncode, done.returncode) == (0, 0), done.stderr
    assert "its input is in S3: checked when it is planned" in checked.stderr
    assert f"s3://{bucket}/jobs/out/output.jsonl" in done.stderr
    assert shown.stdout == f"s3://{bucket}/jobs/out/output.jsonl\n"
    assert shown.stderr.startswith("  60 answers, ")
    assert sorted(read_ids(store, "out/output.jsonl")) == sorted(f"id-{number}" for number in range(60))
    assert store.find("out/error.jsonl") is None
    workshop.wait_for("the last status", lambda: (read_json(store, "out/status.json") or {}).get("ended_at"))
    assert read_json(store, "out/status.json")["released"] == "verified"
    assert read_json(store, "out/receipt.json")["requests_completed"] == 60
    owner = read_json(store, "out/_leasehold/owner.json")
    assert (owner["epoch"], owner["run"]) == (1, "cloudy")
    assert [each["size"] for each in owner["ended"]["results"]] == [len((store.read("out/output.jsonl") or (b"",))[0])]
    assert list_parts(store) == []
    plan = json.loads((workshop.run_dir("cloudy") / "plan.json").read_bytes())
    assert plan["staged"]["address"] == f"s3://{bucket}/jobs/in.jsonl" == plan["job"]["input"]
    secret = service.environment["AWS_SECRET_ACCESS_KEY"].encode()
    files = [path for path in workshop.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".json" and "state" in path.parts for path in files)
    assert [path for path in files if secret in path.read_bytes()] == []
    assert all(secret not in (store.read(facts.key.removeprefix("jobs/")) or (b"",))[0] for facts in store.list(""))
    workshop.wait_until_nothing_is_left()


def test_a_computer_that_is_not_heard_of_loses_its_run_to_another_one_and_changes_nothing_when_it_wakes_up(
    service: ObjectService, workshop: Workshop, elsewhere: Workshop, bucket: str
) -> None:
    """For whoever looks from outside a computer that sleeps is one that is lost; what kill -9 leaves is in tests/chaos."""
    store = service.open(f"s3://{bucket}")
    job = workshop.write_job(output=f"s3://{bucket}/out/", lines=400, max_tokens=200)
    first = workshop.start("run", str(job), "--run", "first")
    workshop.wait_for("a part", lambda: list_parts(store))
    for _ in range(3):
        tell(workshop, signal.SIGSTOP)
    sealed = {custom_id for key in list_parts(store) for custom_id in read_ids(store, key)}
    refused = workshop.inv("run", str(job), "--run", "another")
    (workshop.folder / "trial.jsonl").unlink()

    done = elsewhere.inv("resume", f"s3://{bucket}/out/", "--new-run", "second", timeout_s=200)

    assert refused.returncode == 2
    assert f"./inv resume s3://{bucket}/out/" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert "run first on" in done.stderr and "taken over from first" in done.stderr
    ids = read_ids(store, "out/output.jsonl")
    assert len(ids) == len(set(ids)) == 400
    assert sealed
    plan = json.loads((elsewhere.run_dir("second") / "plan.json").read_bytes())
    assert plan["taken_over"]["answers"] >= len(sealed)
    owner = read_json(store, "out/_leasehold/owner.json")
    assert (owner["epoch"], owner["run"]) == (2, "second")

    again = elsewhere.inv("resume", f"s3://{bucket}/out/")
    assert again.returncode == 0 and "nothing was rented" in again.stderr

    before = list_all_but(store, "1-first")
    tell(workshop, signal.SIGCONT)

    assert first.wait(60) != 0
    status = workshop.wait_for_end("first", 20)
    assert "has another owner now" in status["message"] and status["released"] == "verified"
    assert '"sealing_ended"' in workshop.events("first")
    assert list_all_but(store, "1-first") == before
    workshop.wait_until_nothing_is_left()


def tell(workshop: Workshop, number: signal.Signals) -> None:
    """A signal to everything that runs, machines included."""
    for process in workshop.ours():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def list_all_but(store: ObjectStore, epoch: str) -> set[tuple[str, str]]:
    """What is in the prefix, with etags, outside the folder of one epoch, which nobody reads any more."""
    return {(facts.key, facts.etag) for facts in store.list("out") if f"/{epoch}/" not in facts.key}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"input": "s3://no-such-bucket-here/in.jsonl"}, 2, "no such bucket"),
        ({"input": "s3://{bucket}/other.jsonl"}, 2, "no such object"),
        ({"output": "s3://no-such-bucket-here/out/"}, 2, "no such bucket"),
        ({"output": "s3://{bucket}/"}, 2, "does not fit"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else None,
)
def test_a_wrong_address_is_told_before_anything_is_rented(
    workshop: Workshop, bucket: str, change: dict[str, str], code: int, words: str
) -> None:
    job = workshop.write_job(**{key: value.format(bucket=bucket) for key, value in change.items()})

    done = workshop.inv("run", str(job))

    assert done.returncode == code
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (workshop.home / "runs").exists() or list((workshop.home / "runs").iterdir()) == []


def test_without_keys_it_is_exit_3(workshop: Workshop, bucket: str) -> None:
    job = workshop.write_job(input=f"s3://{bucket}/in.jsonl")

    done = workshop.inv(
        "run",
        str(job),
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_EC2_METADATA_DISABLED="true",
        HOME=str(workshop.folder),
    )

    assert done.returncode == 3
    assert "there are no keys for S3" in done.stderr
    assert urllib.request.urlopen(workshop.environment["AWS_ENDPOINT_URL"] + f"/{bucket}", timeout=20).status == 200
