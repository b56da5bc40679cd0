"""A release on a disk that takes not one byte more: machines cost money all the same, so they are ended, and it is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.cloud import LaunchRequest
from providers.keys import make_key_pair
from providers.lease.lease import load_lease
from providers.local.local import LocalCloud
from stacks.planning.plan import save_plan
from stacks.releasing.release import release_run
from stacks.run_folder import RunFolder
from tests.stacks.run_files import (
    EXPIRES_AT,
    make_folder,
    make_job,
    make_lease,
    make_offer,
    name_machine,
    note_machine,
    plan_for,
)

pytestmark = [pytest.mark.wire, pytest.mark.timeout(90)]

# What a full disk does to every write, without filling one: no file may grow.
_FILL = """
import os, resource, sys
from pathlib import Path
from stacks.lifecycle.__main__ import main
from stacks.lifecycle.lifecycle import Lifecycle
from stacks.releasing.release import release_run
from stacks.run_folder import RunFolder

def fill(*_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
"""
_RELEASE = """
fill()
outcome = release_run(RunFolder(Path(sys.argv[1])), Path(sys.argv[2]), os.environ)
print(outcome.verified, outcome.message)
"""
_LIFECYCLE = """
def work(life):
    fill()
    Path(sys.argv[1], "a word").write_text("that is one too many")

Lifecycle._work = work
sys.exit(main())
"""
_DEAD_RUN = """
from stacks.lifecycle.dead_run import end_dead_run
fill()
end_dead_run(RunFolder(Path(sys.argv[1])), Path(sys.argv[2]), os.environ)
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    made = LocalCloud(tmp_path / "cloud")
    yield made
    for state in made.list_ours(""):
        made.terminate(state.id)


@pytest.fixture
def folder(tmp_path: Path, cloud: LocalCloud) -> RunFolder:
    """A run with an open lease and one machine, which nobody has released."""
    made = make_folder(tmp_path / "home" / "runs")
    save_plan(plan_for(make_job()), made.plan)
    make_lease(made)
    keys = make_key_pair()
    id = cloud.launch(
        LaunchRequest(
            name=name_machine(),
            offer=make_offer(),
            public_key=keys.public,
            host_private_key=keys.private,
            expires_at=2 * EXPIRES_AT,
            heartbeat_timeout_s=0,
        )
    )
    note_machine(made, id, "created", "seen")
    return made


def run_full(script: str, *arguments: object, home: Path, cloud: Path) -> subprocess.CompletedProcess[str]:
    """Its stderr is a file on the full disk, as a life cycle's log is."""
    with (home / "stderr").open("ab") as log:
        return subprocess.run(
            [sys.executable, "-c", _FILL + script, *map(str, arguments)],
            env={**os.environ, "LEASEHOLD_HOME": str(home), "LEASEHOLD_LOCAL_CLOUD_DIR": str(cloud)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            timeout=60,
        )


def test_machines_are_ended_though_nothing_can_be_written_and_the_proof_comes_later(
    folder: RunFolder, cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"

    done = run_full(_RELEASE, folder.root, home, home=home, cloud=tmp_path / "cloud")

    assert done.stdout.startswith("False "), done
    assert "cannot be written down" in done.stdout
    assert "File too large" in done.stdout
    assert cloud.list_ours("") == []
    assert load_lease(folder.root).state == "open"

    monkeypatch.setenv("LEASEHOLD_LOCAL_CLOUD_DIR", str(tmp_path / "cloud"))
    assert release_run(folder, home, os.environ, force=True).verified
    assert load_lease(folder.root).proof is not None


def test_a_life_cycle_that_cannot_write_a_word_still_gives_its_machines_back(
    folder: RunFolder, cloud: LocalCloud, tmp_path: Path
) -> None:
    done = run_full(_LIFECYCLE, folder.root, home=tmp_path / "home", cloud=tmp_path / "cloud")

    assert done.returncode == 12, done
    assert cloud.list_ours("") == []


def test_a_disk_without_room_for_a_lock_does_not_keep_a_dead_run_from_being_released(
    folder: RunFolder, cloud: LocalCloud, tmp_path: Path
) -> None:
    (folder.root / "release.lock").symlink_to(tmp_path / "nowhere" / "release.lock")

    run_full(_DEAD_RUN, folder.root, tmp_path / "home", home=tmp_path / "home", cloud=tmp_path / "cloud")

    assert cloud.list_ours("") == []
