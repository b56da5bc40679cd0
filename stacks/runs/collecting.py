"""Copies a run's results to the output folder or the S3 prefix that its job names. Called at the end of every run."""

from __future__ import annotations

import shutil
from pathlib import Path

from runtime.objects.object_settings import is_object_address
from schemas.job import Job
from stacks.run_folder import RunFolder
from stacks.runs.prefix_results import deliver_records, deliver_results


def collect_results(folder: RunFolder, job: Job) -> None:
    """Each file whole or not at all; nothing when the job names no folder."""
    if not job.output:
        return
    if is_object_address(job.output):
        deliver_results(folder)
        return
    target = Path(job.output)
    target.mkdir(parents=True, exist_ok=True)
    for source in (folder.output, folder.errors):
        if source.exists():
            # Named for the run: another one with the same folder may be at it too.
            half = target / f".{source.name}.{folder.run}.new"
            shutil.copyfile(source, half)
            half.replace(target / source.name)
        else:
            # What an earlier run left there would be taken for this run's.
            (target / source.name).unlink(missing_ok=True)


def collect_records(folder: RunFolder, job: Job) -> None:
    """Put the receipt and the last status beside results in S3, whose reader may have nothing else."""
    if is_object_address(job.output):
        deliver_records(folder)
