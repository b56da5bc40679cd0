"""Sees to a run whose life cycle died: `python -m stacks.lifecycle.orphan_release FOLDER`, started by its dispatcher at the end.

It waits while the life cycle lives, which then gives everything back by itself, and does that in its place when it was killed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import ReleaseError
from schemas.events import append_event
from stacks.run_folder import RunFolder, get_home
from stacks.runs.run_processes import is_lifecycle_alive, load_processes
from stacks.runs.run_status import is_over, read_status

# As long as a life cycle may work on its release; behind it there is still the lease's expiry.
PATIENCE_S = 3600.0
_POLL_S = 0.25


def release_if_orphaned(
    folder: RunFolder, home: Path, environment: Mapping[str, str], *, patience_s: float = PATIENCE_S
) -> int:
    """Give a dead life cycle's machines back; 0 when there was nothing to do or absence is proven.

    A run without a life cycle of its own is plain Pulumi's, whose user destroys it.
    """
    if load_processes(folder) is None:
        return 0
    deadline = time.monotonic() + patience_s
    while is_lifecycle_alive(folder):
        if time.monotonic() > deadline:
            return 0
        time.sleep(_POLL_S)
    if is_over(read_status(folder)):
        return 0
    # Imported when it is needed: nearly every life cycle lives, and this process must not take its time at the end.
    from stacks.lifecycle.dead_run import end_dead_run

    append_event(
        folder.events, "release", "orphan_release", "the life cycle is dead: giving the machines back without it"
    )
    status = end_dead_run(folder, home, environment)
    return 0 if status.released == "verified" else ReleaseError.exit_code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="stacks.lifecycle.orphan_release")
    parser.add_argument("folder", type=Path)
    return release_if_orphaned(RunFolder(parser.parse_args(arguments).folder), get_home(), os.environ)


if __name__ == "__main__":
    sys.exit(main())
