"""Where a run's files are: `.leasehold/runs/<run>/`, and the home folder around it. Called by every command and by the program."""

from __future__ import annotations

import os
import re
from pathlib import Path

from schemas.errors import SpecError
from schemas.files import create_file

PROJECT = Path(__file__).resolve().parent.parent
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}", re.IGNORECASE)


def get_home() -> Path:
    """The folder of all runs and of Pulumi's state: $LEASEHOLD_HOME, else .leasehold in the checkout."""
    return Path(os.environ.get("LEASEHOLD_HOME") or PROJECT / ".leasehold").absolute()


class RunFolder:
    """Paths of one run; makes nothing by itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root.name
        self.plan = root / "plan.json"
        self.manifest = root / "manifest.json"
        self.status = root / "status.json"
        self.events = root / "events.jsonl"
        self.progress = root / "progress.json"
        self.attempts = root / "attempts.json"
        self.budget = root / "budget.json"
        self.failures = root / "failures.jsonl"
        self.receipt = root / "receipt.json"
        self.machines = root / "machines"
        self.input = root / "input.jsonl"
        self.output = root / "output.jsonl"
        self.errors = root / "error.jsonl"
        self.ssh_key = root / "id_ed25519"
        self.engine_key = root / "engine.key"
        self.host_keys = root / "hostkeys"
        self.lifecycle = root / "lifecycle.json"
        self.lifecycle_log = root / "lifecycle.log"
        self.pulumi_log = root / "pulumi.log"
        self.cancel = root / "cancel"
        self.notifications = root / "notifications.jsonl"
        self.notifications_lock = root / "notifications.lock"

    def make(self) -> None:
        """Make the folder, private to this user."""
        self.machines.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.host_keys.mkdir(mode=0o700, exist_ok=True)

    def machine(self, index: int) -> Path:
        return self.machines / f"{index}.json"

    def host_key(self, name: str) -> Path:
        """The private host key that we made for the machine of that name; the public one is beside it (.pub)."""
        return self.host_keys / name

    def engine_log(self, index: int) -> Path:
        return self.root / f"engine-{index}.log"

    def boot_log(self, index: int) -> Path:
        return self.root / f"boot-{index}.log"


def open_run(run: str, home: Path) -> RunFolder:
    """The folder of a run by its full name, whether it exists or not; raises SpecError for what cannot be a name."""
    if _RUN_NAME.fullmatch(run) is None:
        raise SpecError(
            f"{run!r} cannot be the name of a run",
            fix="Use letters, digits, '-', '_' and '.', at most 80, with a letter or digit first.",
        )
    return RunFolder(home / "runs" / run)


def list_runs(home: Path) -> list[RunFolder]:
    """All runs, the latest first."""
    folder = home / "runs"
    if not folder.is_dir():
        return []
    found = [RunFolder(path) for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda each: (each.root.stat().st_ctime, each.run), reverse=True)


def find_run(prefix: str, home: Path) -> RunFolder:
    """The run with that name or that unique prefix; "" is the latest. Raises SpecError that names the runs there are."""
    runs = list_runs(home)
    if not runs:
        raise SpecError("there are no runs yet", where=str(home / "runs"), fix="Start one: ./inv run jobs/demo.yaml")
    if not prefix:
        return _find_latest(runs)
    exact = [each for each in runs if each.run == prefix]
    matching = exact or [each for each in runs if each.run.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(each.run for each in (matching or runs)[:5])
    what = f"{len(matching)} runs start with {prefix!r}" if matching else f"no run is called {prefix!r}"
    raise SpecError(what, fix=f"{'Say which' if matching else 'The latest ones'}: {names}")


def _find_latest(runs: list[RunFolder]) -> RunFolder:
    return max(runs, key=lambda each: each.plan.stat().st_mtime if each.plan.exists() else each.root.stat().st_ctime)


def prepare_home(home: Path) -> None:
    """Make the home folder with its state folder and a generated passphrase for Pulumi's secrets."""
    try:
        for folder in (home, home / "runs", home / "state", home / "stacks"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_file(home / "passphrase", os.urandom(24).hex().encode(), mode=0o600)
    except OSError as error:
        raise SpecError(
            f"the folder of runs and state cannot be written: {error.strerror}",
            where=str(home),
            fix="Give access to it, or point LEASEHOLD_HOME at another folder.",
        ) from error
