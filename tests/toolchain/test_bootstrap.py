"""`./inv` in a small checkout of its own: real venv, real pip, no network; the project's packages come from this venv."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.wire

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 60
_POLL_S = 0.05

# Stands for setuptools: the installed "project" is a path file that shows this checkout and our own packages.
_BACKEND = """
import pathlib, time, zipfile

HERE = pathlib.Path(__file__).parent

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with (HERE / "installs").open("a") as log:
        log.write("install\\n")
    while (HERE / "slow").exists():
        time.sleep(0.05)
    name = "leasehold-0.1.0-py3-none-any.whl"
    info = "leasehold-0.1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        wheel.writestr("leasehold.pth", f"{HERE}\\n{(HERE / 'packages').read_text()}\\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: leasehold\\nVersion: 0.1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""

_PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "leasehold"
version = "0.1.0"
"""

_TASKS = """
import os
from invoke.tasks import task
from schemas.errors import CloudError, SpecError

@task
def status(context, run=""):
    "Show the state of a run."
    print(f"{run} in {os.getcwd()}")

@task
def check(context):
    "Print what follows two dashes."
    print(context.remainder)

@task(iterable=["job"])
def validate(context, job):
    "Find fault with jobs that say bad."
    for each in job:
        if "bad" in open(each).read():
            raise SpecError("this job is bad", where=each, fix="Correct it.")

@task(iterable=["job"])
def run(context, job):
    "Run."
    print("ran")

@task
def env(context):
    "Print exports."
    print("exports")

@task
def reap(context, cloud=""):
    "Fail in a chosen way."
    if cloud == "error":
        raise CloudError("the cloud said no", where="somewhere", fix="ask again")
    if cloud == "interrupt":
        raise KeyboardInterrupt
    raise ZeroDivisionError("a mistake")
"""


class Checkout:
    """A checkout, and a PATH on which every Python is the one that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.environ = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(folder / "home"), "PIP_NO_INDEX": "1"}
        shutil.copytree(_ROOT / "toolchain", self.root / "toolchain", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(_ROOT / "schemas", self.root / "schemas", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(_ROOT / "inv", self.root / "inv")
        for name, text in {"backend.py": _BACKEND, "pyproject.toml": _PYPROJECT, "tasks.py": _TASKS}.items():
            (self.root / name).write_text(text)
        (self.root / "packages").write_text(sysconfig.get_path("purelib"))
        (self.root / "toolchain/requirements.lock").write_text("# nothing\n")
        for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3"):
            self.write_program(name, f'exec "{Path(sys.executable).resolve()}" "$@"')

    def write_program(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def inv(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run([self.root / "inv", *arguments], **environ)

    def run(
        self, argv: Sequence[str | Path], *, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=cwd or self.root,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "inv", *arguments],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def count_installs(self) -> int:
        log = self.root / "installs"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def forget(self) -> None:
        """Make the next start set up again."""
        self.stamp.unlink(missing_ok=True)
        (self.root / "installs").unlink(missing_ok=True)

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / "leasehold.json"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("bootstrap"))
    first = checkout.inv("status", "first")
    assert first.returncode == 0, first.stderr
    assert "making .venv" in first.stderr
    return checkout


def test_the_second_start_sets_nothing_up_and_is_quick(checkout):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = checkout.inv("--list")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    # Processor time, not the clock on the wall: other work on the computer must not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    assert result.stderr == ""
    assert "status" in result.stdout
    assert "Show the state of a run." in result.stdout


def test_it_works_through_a_symlink_and_stays_where_the_user_is(checkout, tmp_path):
    (tmp_path / "link").symlink_to(checkout.root / "inv")
    result = checkout.run(["./link", "status", "X"], cwd=tmp_path)

    assert result.stdout == f"X in {tmp_path}\n"


def test_packages_of_the_user_with_the_names_of_ours_are_left_alone(checkout, tmp_path):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("raise ImportError('this is the schemas of somebody else')")

    result = checkout.inv("status", PYTHONPATH=str(tmp_path))

    assert (result.returncode, result.stderr) == (0, "")


def test_a_changed_lock_file_installs_again_into_the_same_venv(checkout):
    (checkout.root / "toolchain/requirements.lock").write_text("# something else\n")
    result = checkout.inv("status")

    assert "installing the packages" in result.stderr
    assert "making .venv" not in result.stderr
    assert checkout.inv("status").stderr == ""


def test_an_interrupted_installation_is_not_taken_for_a_finished_one(checkout):
    checkout.forget()
    (checkout.root / "slow").touch()
    process = checkout.start("status")
    deadline = time.monotonic() + 30
    while not checkout.count_installs():
        assert time.monotonic() < deadline
        time.sleep(_POLL_S)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    (checkout.root / "slow").unlink()

    assert process.returncode in (130, -signal.SIGINT)  # a shell shows both as 130
    assert "set-up interrupted" in stderr
    assert not checkout.stamp.exists()
    assert "installing Leasehold" in checkout.inv("status").stderr


def test_of_two_starts_at_the_same_time_one_installs_and_the_other_waits(checkout):
    checkout.forget()
    processes = [checkout.start("status", str(number)) for number in range(2)]
    outputs = [process.communicate(timeout=_TIMEOUT_S) for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert checkout.count_installs() == 1
    assert sum("waiting for it" in stderr for _, stderr in outputs) == 1


def test_a_venv_whose_python_is_gone_is_made_anew(checkout):
    python = checkout.root / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    result = checkout.inv("status")

    assert result.returncode == 0, result.stderr
    assert "making .venv" in result.stderr


def test_a_package_that_cannot_be_had_ends_with_pips_own_words(checkout):
    checkout.forget()
    lock = checkout.root / "toolchain/requirements.lock"
    lock.write_text("no-such-package-of-leasehold==1.0\n")
    refused = checkout.inv("status")
    unreachable = checkout.inv(
        "status", PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="1", PIP_FIND_LINKS=""
    )
    lock.write_text("# nothing\n")

    assert refused.returncode == 1
    assert "no-such-package-of-leasehold" in refused.stderr
    assert "cannot be reached" not in refused.stderr
    assert unreachable.returncode == 1
    assert "The package index cannot be reached: check the network" in unreachable.stderr
    assert checkout.inv("status").returncode == 0


def test_without_ssh_one_sentence_says_what_to_install(checkout, tmp_path):
    for name in ("sh", "dirname", "readlink"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    result = checkout.inv("status", PATH=str(tmp_path))

    assert result.returncode == 1
    assert result.stderr.startswith("inv: the ssh client is missing. Install it: sudo apt install")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 1", "Python 3.11 or newer is needed. Install it: "),
        ('case "$2" in *ensurepip*) exit 1;; esac', "python3.14 cannot make a virtual environment. Install its venv"),
    ],
    ids=["no python", "no venv module"],
)
def test_without_a_usable_python_one_sentence_says_what_to_install(checkout, tmp_path, script, sentence):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3"):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    for name in ("sh", "dirname", "readlink", "ssh"):
        (tools / name).symlink_to(shutil.which(name) or "/bin/true")
    fresh = tmp_path / "fresh"
    shutil.copytree(checkout.root, fresh, ignore=shutil.ignore_patterns(".venv"))
    result = checkout.run([fresh / "inv"], PATH=str(tools))

    assert result.returncode == 1
    assert result.stderr.startswith(f"inv: {sentence}")
    assert len(result.stderr.splitlines()) == 1


def test_a_task_that_needs_pulumi_gets_one_and_a_lost_one_is_noticed(checkout):
    is_current = [checkout.root / ".venv/bin/python", "-I", checkout.root / "toolchain/installed.py"]
    checkout.write_program("pulumi", "echo v3.259.0")
    checkout.write_program("pulumi-language-python", "exit 0")
    first, second = checkout.inv("env"), checkout.inv("env")
    record = json.loads((checkout.root / ".venv/leasehold-pulumi.json").read_text())
    assert checkout.run([*is_current, "env"]).returncode == 0
    (checkout.bin / "pulumi").unlink()

    assert "using Pulumi 3.259.0 (found on PATH" in first.stderr
    assert second.stderr == ""
    assert (record["origin"], record["executable"]) == ("path", str(checkout.bin / "pulumi"))
    assert checkout.run([*is_current, "env"]).returncode == 1
    assert checkout.run([*is_current, "status"]).returncode == 0
    assert checkout.run([*is_current, "env", "--help"]).returncode == 0


@pytest.mark.parametrize("typed", [("bad.yaml",), ("--limit", "3", "good.yaml", "bad.yaml"), ("--job=bad.yaml",)])
def test_a_broken_job_is_told_before_pulumi_is_looked_for(checkout, typed):
    (checkout.root / ".venv/leasehold-pulumi.json").unlink(missing_ok=True)
    (checkout.root / "bad.yaml").write_text("bad")
    (checkout.root / "good.yaml").write_text("fine")

    result = checkout.inv("run", *typed)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("bad.yaml: this job is bad")
    assert not (checkout.root / ".venv/leasehold-pulumi.json").exists()


def test_a_job_in_order_gets_its_pulumi(checkout):
    (checkout.root / ".venv/leasehold-pulumi.json").unlink(missing_ok=True)
    (checkout.root / "good.yaml").write_text("fine")
    checkout.write_program("pulumi", "echo v3.259.0")
    checkout.write_program("pulumi-language-python", "exit 0")

    result = checkout.inv("run", "good.yaml")

    (checkout.bin / "pulumi").unlink()
    assert (result.returncode, result.stdout) == (0, "ran\n")
    assert "using Pulumi 3.259.0" in result.stderr


def test_a_usage_error_ends_with_2_and_one_line(checkout):
    result = checkout.inv("statsu")

    assert result.returncode == 2
    assert result.stderr == "inv: there is no task 'statsu'. Did you mean status? ./inv --list shows them all.\n"


def test_what_follows_two_dashes_reaches_the_task(checkout):
    assert checkout.inv("check", "--", "-k", "a b").stdout == "-k 'a b'\n"


def test_an_error_of_ours_is_printed_with_its_own_exit_code(checkout):
    result = checkout.inv("reap", "--cloud", "error")

    assert (result.returncode, result.stderr) == (4, "somewhere: the cloud said no\n  ask again\n")


def test_an_interrupt_ends_with_130(checkout):
    assert checkout.inv("reap", "--cloud", "interrupt").returncode == 130


def test_an_unexpected_error_is_one_message_and_a_file_with_the_traceback(checkout):
    result = checkout.inv("reap")
    path = result.stderr.split("The details are in ")[1].strip().removesuffix(".")

    assert result.returncode == 1
    assert result.stderr.startswith("inv: unexpected ZeroDivisionError: a mistake\n")
    assert "Traceback" not in result.stderr
    assert "Traceback" in Path(path).read_text()


def test_a_reader_that_goes_away_is_no_error(checkout):
    result = checkout.run(["/bin/sh", "-c", "./inv --list | true"])

    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["reap", "--help"], ["help", "reap"], ["--help", "reap"]])
def test_a_tasks_help_shows_its_text_and_flags(checkout, arguments):
    result = checkout.inv(*arguments)

    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ./inv reap [flags]\n")
    assert "Fail in a chosen way." in result.stdout
    assert "--cloud" in result.stdout
