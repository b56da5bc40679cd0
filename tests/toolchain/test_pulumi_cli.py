"""Which Pulumi is found, installed or refused; the releases come from an HTTP server on 127.0.0.1."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from toolchain import pulumi_cli
from toolchain.cache import EXECUTABLES, PULUMI_VERSION, fill_folder, find_cache_root, load_origin
from toolchain.download import name_archive
from toolchain.failure import ToolchainError
from toolchain.progress import Progress
from toolchain.pulumi_cli import find_pulumi, install_pulumi, pulumi_environment

pytestmark = pytest.mark.wire

_NOWHERE = "http://127.0.0.1:9/releases"


class Computer:
    """A home, a PATH with nothing but the system on it, and a cache: what the installer may see."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environ = {"HOME": str(folder / "home"), "PATH": f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"}
        self.cache = find_cache_root(self.environ) / PULUMI_VERSION

    def put_on_path(self, version: str, *, host: bool = True) -> None:
        write_program(self.bin / "pulumi", f"echo v{version}")
        if host:
            write_program(self.bin / "pulumi-language-python")

    def put_in_cache(self, origin: str) -> None:
        write_programs(self.cache / "bin")
        (self.cache / "made.json").write_text(json.dumps({"origin": origin}))

    def put_plugin(self) -> None:
        write_program(
            Path(self.environ["HOME"], ".pulumi/plugins/resource-command-v1.2.1/pulumi-resource-command"),
        )


def write_program(path: Path, script: str = "exit 0") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def write_programs(folder: Path) -> None:
    for name in EXECUTABLES:
        write_program(folder / name, f"echo v{PULUMI_VERSION}" if name == "pulumi" else "exit 0")


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


@pytest.fixture
def progress() -> Progress:
    return Progress(io.StringIO())


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the build of many minutes by one that takes none; the list says when it was called."""
    calls: list[Path] = []

    def build(bin_folder: Path, progress: Progress) -> None:
        calls.append(bin_folder)
        write_programs(bin_folder)

    monkeypatch.setattr(pulumi_cli, "build_pulumi", build)
    return calls


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Path]:
    """Serve this folder; the address is in its `url` file."""
    folder = tmp_path / "releases"
    folder.mkdir()
    handler = partial(_QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (folder / "url").write_text(f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    thread.join(10)
    server.server_close()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def publish(releases: Path, *, checksum: str | None = None) -> str:
    """Publish a release with fake programs; returns the address."""
    write_programs(releases / "pulumi")
    archive = releases / name_archive()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(releases / "pulumi", "pulumi")
    digest = checksum or hashlib.sha256(archive.read_bytes()).hexdigest()
    other = f"{'0' * 64}  pulumi-v{PULUMI_VERSION}-plan9-mips.tar.gz\n"
    (releases / f"pulumi-{PULUMI_VERSION}-checksums.txt").write_text(f"{other}{digest}  {archive.name}\n")
    return (releases / "url").read_text()


def test_nothing_is_found_where_nothing_is(computer):
    assert find_pulumi(computer.environ) is None


def test_a_new_enough_pulumi_on_path_wins_over_the_cache(computer):
    computer.put_on_path("3.200.0")
    computer.put_in_cache("built")
    pulumi = find_pulumi(computer.environ)

    assert (pulumi.origin, pulumi.version, pulumi.executable) == ("path", "3.200.0", computer.bin / "pulumi")


@pytest.mark.parametrize(("version", "host"), [("3.199.9", True), ("2.300.0", True), ("3.259.0", False)])
def test_a_pulumi_on_path_that_is_too_old_or_has_no_python_host_is_passed_over(computer, version, host):
    computer.put_on_path(version, host=host)
    computer.put_in_cache("built")

    assert find_pulumi(computer.environ).origin == "built"


def test_a_pulumi_on_path_that_does_not_start_is_passed_over(computer):
    computer.put_on_path("3.259.0")
    write_program(computer.bin / "pulumi", "echo broken >&2; exit 1")

    assert find_pulumi(computer.environ) is None


def test_our_own_pulumi_on_path_keeps_its_origin(computer):
    computer.put_in_cache("built")
    computer.environ["PATH"] = f"{computer.cache / 'bin'}{os.pathsep}{computer.environ['PATH']}"

    assert find_pulumi(computer.environ).origin == "built"


def test_the_cache_follows_xdg_cache_home(computer, tmp_path):
    computer.environ["XDG_CACHE_HOME"] = str(tmp_path / "xdg")

    assert find_cache_root(computer.environ) == tmp_path / "xdg" / "leasehold" / "toolchain"


@pytest.mark.parametrize("missing", [*EXECUTABLES, "made.json"])
def test_an_incomplete_cache_is_not_used(computer, missing):
    computer.put_in_cache("built")
    next(computer.cache.rglob(missing)).unlink()

    assert find_pulumi(computer.environ) is None


def test_the_real_plugin_is_used_where_it_is_installed_and_else_the_stand_in(computer):
    computer.put_in_cache("built")
    assert find_pulumi(computer.environ).plugin == "stand-in"
    computer.put_plugin()

    assert find_pulumi(computer.environ).plugin == "real"


def test_the_environment_puts_the_venv_first_and_forbids_downloads_only_with_the_stand_in(computer):
    computer.put_in_cache("built")
    stand_in = pulumi_environment(find_pulumi(computer.environ), computer.environ)
    computer.put_plugin()
    real = pulumi_environment(find_pulumi(computer.environ), computer.environ)

    folders = stand_in["PATH"].split(os.pathsep)
    assert [Path(folder).parts[-2:] for folder in folders[:2]] == [(".venv", "bin"), ("command_plugin", "bin")]
    assert folders[2] == str(computer.cache / "bin")
    assert os.access(Path(folders[1], "pulumi-resource-command"), os.X_OK)
    assert stand_in["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "1"
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in real
    assert "command_plugin" not in real["PATH"]
    assert real["PULUMI_SKIP_UPDATE_CHECK"] == "1"


def test_applying_the_environment_twice_changes_nothing(computer):
    computer.put_in_cache("built")
    once = pulumi_environment(find_pulumi(computer.environ), computer.environ)
    again = {**computer.environ, **once}

    assert pulumi_environment(find_pulumi(again), again) == once


def test_the_release_is_downloaded_and_checked_before_anything_is_built(computer, progress, built, releases):
    pulumi = install_pulumi(progress, computer.environ, releases_url=publish(releases))

    assert (pulumi.origin, built) == ("download", [])
    assert pulumi.executable == computer.cache / "bin" / "pulumi"
    assert load_origin(computer.cache) == "download"


def test_an_archive_with_another_checksum_is_refused_and_leaves_nothing(computer, progress, built, releases):
    url = publish(releases, checksum="1" * 64)
    with pytest.raises(ToolchainError, match="is not the published file"):
        install_pulumi(progress, computer.environ, releases_url=url)

    assert built == []
    assert find_pulumi(computer.environ) is None
    assert [path.name for path in computer.cache.parent.iterdir()] == [".lock"]


def test_without_a_release_for_this_computer_it_is_built(computer, progress, built, releases):
    url = publish(releases)
    (releases / f"pulumi-{PULUMI_VERSION}-checksums.txt").write_text("")

    assert install_pulumi(progress, computer.environ, releases_url=url).origin == "built"


def test_without_a_way_out_it_is_built_and_the_next_time_found(computer, progress, built):
    first = install_pulumi(progress, computer.environ, releases_url=_NOWHERE)
    second = install_pulumi(progress, computer.environ, releases_url=_NOWHERE)

    assert (first.origin, first.plugin) == ("built", "stand-in")
    assert second == first
    assert len(built) == 1


def test_a_server_that_never_answers_is_given_up_soon(computer, progress, built, monkeypatch):
    monkeypatch.setattr("toolchain.download._REACH_TIMEOUT_S", 0.3)
    silent = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    started = time.monotonic()
    install_pulumi(progress, computer.environ, releases_url=f"http://127.0.0.1:{silent.server_port}")
    silent.server_close()

    assert time.monotonic() - started < 5
    assert len(built) == 1


def test_a_build_that_fails_says_why_and_how_to_go_on_without_it(computer, progress, monkeypatch):
    def fail(bin_folder: Path, progress: Progress) -> None:
        raise ToolchainError("go failed with exit code 1")

    monkeypatch.setattr(pulumi_cli, "build_pulumi", fail)
    with pytest.raises(ToolchainError, match=r"go failed with exit code 1\nInstall Pulumi 3\.200 or newer yourself"):
        install_pulumi(progress, computer.environ, releases_url=_NOWHERE)

    assert find_pulumi(computer.environ) is None


def test_two_at_once_build_once(computer, progress, built):
    threads = [
        threading.Thread(target=install_pulumi, args=(progress, computer.environ), kwargs={"releases_url": _NOWHERE})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(built) == 1


def test_an_interrupted_build_is_never_used_and_the_next_one_removes_it(computer, progress, built, tmp_path):
    computer.cache.parent.mkdir(parents=True)
    killed = computer.cache.parent / ".unfinished-killed"
    write_programs(killed / "bin")
    with pytest.raises(KeyboardInterrupt), fill_folder(computer.cache, "built") as bin_folder:
        write_programs(bin_folder)
        raise KeyboardInterrupt

    assert find_pulumi(computer.environ) is None
    install_pulumi(progress, computer.environ, releases_url=_NOWHERE)
    assert sorted(path.name for path in computer.cache.parent.iterdir()) == [".lock", PULUMI_VERSION]


def test_progress_tells_that_a_long_step_is_alive():
    stream = io.StringIO()
    with Progress(stream, interval_s=0.01).step("building"):
        while stream.getvalue().count("\n") < 3:
            time.sleep(0.01)

    lines = stream.getvalue().splitlines()
    assert lines[0] == "inv: building ..."
    assert lines[1] == "inv: building ... 0 s"
    assert lines[-1] == "inv: building: done in 0 s"
