"""Copies a run's results to the output folder that its job names. Called at the end of every run."""

from __future__ import annotations

import shutil
from pathlib import Path

from schemas.job import Job
from stacks.run_folder import RunFolder


def collect_results(folder: RunFolder, job: Job) -> None:
    """Each file whole or not at all; nothing when the job names no folder."""
    if not job.output:
        return
    target = Path(job.output)
    target.mkdir(parents=True, exist_ok=True)
    for source in (folder.output, folder.errors):
        if source.exists():
            half = target / f".{source.name}.new"
            shutil.copyfile(source, half)
            half.replace(target / source.name)
        else:
            # What an earlier run left there would be taken for this run's.
            (target / source.name).unlink(missing_ok=True)
