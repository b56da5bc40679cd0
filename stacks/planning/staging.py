"""Brings an input from S3 to this computer, once, before it is planned. Called by `plan`, `run`, `resume` and the program.

It waits in `$LEASEHOLD_HOME/staging/` under a name made of its address and etag, and is linked into the run's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path

import msgspec

from runtime.batch.batch_input import InputReport
from runtime.objects.object_settings import is_object_address, parse_address
from runtime.objects.object_store import ObjectFacts
from runtime.objects.output_prefix import InputObject
from schemas.errors import SpecError
from schemas.files import hold_lock
from schemas.job import LoadedJob
from stacks.planning.object_access import open_bucket
from stacks.planning.plan import Plan
from stacks.run_folder import RunFolder, get_home

_WAIT_S = 6 * 3600.0
_KEPT_S = 24 * 3600.0


class StagedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose input is a file on this computer; `source` is where the input came from, if from S3."""

    loaded: LoadedJob
    given: LoadedJob
    source: InputObject | None = None

    def name_source(self, report: InputReport) -> InputReport:
        """What is wrong with the input, by the address that the job names and not by the name of our copy."""
        if self.source is None:
            return report
        address = self.source.address
        problems = tuple(msgspec.structs.replace(problem, file=address) for problem in report.problems)
        return msgspec.structs.replace(report, path=address, problems=problems)

    def put_back(self, plan: Plan) -> Plan:
        """A plan that was made with the local file, with the job as it was written."""
        if self.source is None:
            return plan
        return msgspec.structs.replace(
            plan, job=msgspec.structs.replace(plan.job, input=self.given.job.input), staged=self.source
        )


def stage_job(loaded: LoadedJob) -> StagedJob:
    """The job with its input on this computer; raises SpecError for an object that is not there."""
    if not is_object_address(loaded.job.input):
        return StagedJob(loaded=loaded, given=loaded)
    address = parse_address(loaded.job.input)
    facts = open_bucket(address).require(address.key)
    source = InputObject(address=str(address), size=facts.size, etag=facts.etag)
    job = msgspec.structs.replace(loaded.job, input=str(fetch_input(source)))
    return StagedJob(loaded=msgspec.structs.replace(loaded, job=job), given=loaded, source=source)


def fetch_input(source: InputObject) -> Path:
    """The input as a local file, downloaded unless it is there; raises SpecError when the object has changed meanwhile."""
    folder = get_home() / "staging"
    _clear_old(folder)
    path = _place(folder, source)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with hold_lock(path.with_suffix(".lock"), exclusive=True, timeout_s=_WAIT_S):
        if not path.exists():
            _refuse_full_disk(path, source)
            address = parse_address(source.address)
            half = path.with_suffix(".part")
            open_bucket(address).download(ObjectFacts(key=address.key, size=source.size, etag=source.etag), half)
            half.rename(path)
    os.utime(path.parent)
    return path


def keep_input(plan: Plan, folder: RunFolder) -> None:
    """Give a run its own name for the staged input, which from then on may be cleared away."""
    if plan.staged is None or folder.input.exists():
        return
    source = fetch_input(plan.staged)
    try:
        folder.input.hardlink_to(source)
    except OSError:
        shutil.copy2(source, folder.input)


def _place(folder: Path, source: InputObject) -> Path:
    name = hashlib.sha256(f"{source.address}\0{source.etag}\0{source.size}".encode()).hexdigest()[:24]
    return folder / name / "input.jsonl"


def _clear_old(folder: Path) -> None:
    """What nobody has asked for since yesterday; a run that uses it has its own link."""
    oldest = time.time() - _KEPT_S
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path)


def _refuse_full_disk(path: Path, source: InputObject) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < source.size:
        raise SpecError(
            f"the input has {source.size:,} bytes, and only {free:,} are free",
            where=str(path.parent),
            fix="Make room, or point LEASEHOLD_HOME at another disk.",
        )
