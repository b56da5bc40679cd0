"""Completion of ./inv, tried in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from toolchain.command_line import ROOT

pytestmark = pytest.mark.wire
TAB = {
    "bash": 'source {script}; COMP_WORDS=({words}); COMP_CWORD={last}; _leasehold_inv; printf "%s\\n" "${{COMPREPLY[@]}}"',
    # zsh calls bash's functions with bash's arrays, as bashcompinit does when Tab is pressed.
    "zsh": "autoload -U compinit && compinit -D -u; source {script}; emulate -L ksh; "
    'COMP_WORDS=({words}); COMP_CWORD={last}; _leasehold_inv; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "fish": "source {script}; complete -C '{line}'",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for run in ("tickets-261124-aaaaaa", "tickets-261124-bbbbbb", "other-261124-cccccc"):
        (home / "runs" / run).mkdir(parents=True)
    return home


@pytest.fixture(scope="module", params=sorted(TAB))
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} on this computer")
    script = tmp_path_factory.mktemp("shell") / name
    done = subprocess.run([ROOT / "inv", "completion", name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    script.write_text(done.stdout)
    return name, script


def press_tab(shell: tuple[str, Path], home: Path, line: str) -> list[str]:
    name, script = shell
    words = line.split(" ")
    typed = " ".join(f'"{word}"' for word in words)
    command = TAB[name].format(script=script, words=typed, last=len(words) - 1, line=line)
    flags = ["--no-config"] if name == "fish" else ["-f"] if name == "zsh" else ["--norc"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LEASEHOLD_HOME": str(home)}
    done = subprocess.run(
        [name, *flags, "-c", command], env=environment, cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    offers = sorted(offered.split("\t")[0].strip() for offered in done.stdout.splitlines() if offered.strip())
    # zsh itself leaves out what does not begin with the word; the others leave that to the function.
    return [offer for offer in offers if offer.startswith(words[-1])] if name == "zsh" else offers


def test_tasks_are_completed(shell: tuple[str, Path], home: Path) -> None:
    assert press_tab(shell, home, "./inv res") == ["results", "resume"]


def test_the_flags_of_a_task_are_completed(shell: tuple[str, Path], home: Path) -> None:
    assert press_tab(shell, home, "./inv reap --") == ["--cloud", "--json", "--yes"]


def test_a_task_that_takes_a_run_is_offered_the_runs(shell: tuple[str, Path], home: Path) -> None:
    assert press_tab(shell, home, "./inv status tick") == ["tickets-261124-aaaaaa", "tickets-261124-bbbbbb"]
    assert len(press_tab(shell, home, "./inv release ")) == 3


def test_behind_a_flag_stands_what_it_takes_and_no_run(shell: tuple[str, Path], home: Path) -> None:
    assert press_tab(shell, home, "./inv logs --source e") == ["engine", "events"]
    assert press_tab(shell, home, "./inv logs tickets-261124-aaaaaa --source b") == ["boot"]
    assert press_tab(shell, home, "./inv reap --cloud ") == ["lambda", "local", "runpod"]
    # A folder: the function offers nothing, so that the shell offers its files.
    assert press_tab(shell, home, "./inv results --output tick") == []
    assert len(press_tab(shell, home, "./inv results --run tick")) == 2


def test_an_unknown_shell_is_refused() -> None:
    done = subprocess.run([ROOT / "inv", "completion", "tcsh"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "bash, zsh, fish" in done.stderr
