"""A checkout of the project as a runner of GitHub Actions has one: a git repository of its own, with .venv as it is here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from toolchain import installed

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("schemas", "providers", "runtime", "stacks", "toolchain", "jobs")
_FILES = ("inv", "tasks.py", "Pulumi.yaml", "pyproject.toml")


class Checkout:
    """The files that commands need, committed as the base; of the examples only the demo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for part in _PARTS:
            shutil.copytree(ROOT / part, folder / part)  # what is compiled already included: it counts for the copy too
        for name in _FILES:
            shutil.copy(ROOT / name, folder / name)
        for example in (folder / "jobs").glob("*.yaml"):
            if example.name != "demo.yaml":
                example.unlink()
        self._make_venv(folder / ".venv")
        (folder / ".gitignore").write_text(".venv\n.leasehold\n__pycache__\n")
        self.git("init", "--quiet", "--initial-branch", "main")
        self.base = self.commit("the base")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit everything; the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def _make_venv(self, venv: Path) -> None:
        """The packages that are installed already, in a place of their own with the mark that nothing is to be done."""
        venv.mkdir()
        for name in ("bin", "lib", "lib64", "include", "pyvenv.cfg", "leasehold-pulumi.json"):
            for home in (Path(sys.prefix), ROOT / ".venv"):
                if (home / name).exists() and not (venv / name).exists():
                    (venv / name).symlink_to((home / name).resolve())
        stamp = installed.make_stamp(sys.version.split()[0]) | {"root": str(self.folder)}
        (venv / "leasehold.json").write_text(json.dumps(stamp))
