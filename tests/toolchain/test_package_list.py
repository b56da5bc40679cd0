"""What is told to Pulumi's language host about the installed packages, beside what pip itself says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.package_list import list_packages
from toolchain.pulumi_cli import HOST_PYTHON

pytestmark = pytest.mark.wire


def ask(python: Path | str, *arguments: str) -> str:
    return subprocess.run([python, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


def make_package(folder: Path, name: str, version: str) -> Path:
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: no\n")
    return information


@pytest.mark.parametrize("options", [["-v", "--format", "json"], ["--format", "json"]])
def test_the_language_host_gets_to_the_byte_what_pip_would_tell_it(options: list[str]) -> None:
    question = ["-m", "pip", "list", *options]

    assert ask(HOST_PYTHON, *question).strip() == ask(sys.executable, *question).strip()


def test_whatever_else_is_asked_goes_to_the_python_of_the_checkout() -> None:
    assert ask(HOST_PYTHON, "-c", "import sys; print(sys.prefix, *sys.argv[1:])", "a b", "") == f"{sys.prefix} a b \n"
    assert ask(HOST_PYTHON, "-m", "pip", "list", "--format", "freeze").startswith("aiohappyeyeballs==")


def test_what_cannot_be_read_is_left_to_pip(tmp_path: Path) -> None:
    (tmp_path / "toolchain").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -I ] && { echo half; exit 1; }\necho "real: $*"\n')
    python.chmod(0o755)
    ours = shutil.copy(HOST_PYTHON, tmp_path / "toolchain")

    assert ask(ours, "-m", "pip", "list", "-v", "--format", "json") == "real: -m pip list -v --format json\n"


def test_packages_are_in_the_order_of_their_names_and_the_first_on_the_path_counts(tmp_path: Path) -> None:
    for folder, name, version in (("a", "pulumi_random", "4.1.0"), ("b", "Pulumi.Random", "3.0"), ("b", "Abc", "1")):
        make_package(tmp_path / folder, name, version)

    found = list_packages([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "none")], verbose=False)

    assert found == [{"name": "Abc", "version": "1"}, {"name": "pulumi_random", "version": "4.1.0"}]


def test_a_package_says_who_installed_it_and_where_its_editable_source_is(tmp_path: Path) -> None:
    information = make_package(tmp_path, "ours", "1.0")
    (information / "INSTALLER").write_text("pip\n")
    source = {"url": "file:///home/me/my%20job", "dir_info": {"editable": True}}
    (information / "direct_url.json").write_text(json.dumps(source))

    assert list_packages([str(tmp_path)], verbose=True) == [
        {
            "name": "ours",
            "version": "1.0",
            "location": str(tmp_path),
            "installer": "pip",
            "editable_project_location": "/home/me/my job",
        }
    ]


def test_a_package_without_a_name_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "torn-1.dist-info").mkdir()
    (tmp_path / "torn-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n\nName: torn\n")

    with pytest.raises(KeyError):
        list_packages([str(tmp_path)], verbose=False)
