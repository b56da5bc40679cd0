"""Pulumi's official release, checked against the published SHA-256; the installer tries it before it builds."""

from __future__ import annotations

import hashlib
import http.client
import platform
import queue
import shutil
import tarfile
import tempfile
import threading
import urllib.request
from pathlib import Path

from toolchain.cache import PULUMI_VERSION
from toolchain.failure import ToolchainError

RELEASES_URL = "https://get.pulumi.com/releases/sdk"

_REACH_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 60.0
_SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class Unreachable(Exception):
    """There is no way to the release, or none for this computer: build instead."""


def fetch_checksum(releases_url: str, archive: str) -> str:
    """Return the SHA-256 that is published for `archive`; raise Unreachable soon where there is no way out."""
    listing = _fetch_soon(f"{releases_url}/pulumi-{PULUMI_VERSION}-checksums.txt").decode("utf-8", "replace")
    for line in listing.splitlines():
        digest, _, name = line.strip().partition(" ")
        if name.strip().lstrip("*") == archive:
            return digest.lower()
    raise Unreachable(f"the release has no {archive}")


def fetch_release(releases_url: str, archive: str, sha256: str, bin_folder: Path) -> None:
    """Put the release's programs into `bin_folder`; refuse an archive that is not the one that was published."""
    with tempfile.TemporaryDirectory(dir=bin_folder.parent) as scratch:
        path = Path(scratch, archive)
        _fetch_to_file(f"{releases_url}/{archive}", path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ToolchainError(
                f"{releases_url}/{archive} is not the published file; nothing was installed"
                f" (its SHA-256 is {found}, {sha256} was published)"
            )
        _unpack(path, Path(scratch), bin_folder)


def name_archive() -> str:
    system, machine = _SYSTEMS.get(platform.system()), _MACHINES.get(platform.machine().lower())
    if not system or not machine:
        raise Unreachable(f"there is no release for {platform.system()} on {platform.machine()}")
    return f"pulumi-v{PULUMI_VERSION}-{system}-{machine}.tar.gz"


def _fetch_soon(url: str) -> bytes:
    """Fetch a small file in a thread: looking a name up has no time limit of its own."""
    answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def fetch() -> None:
        try:
            with urllib.request.urlopen(url, timeout=_REACH_TIMEOUT_S) as response:
                answers.put(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=fetch, daemon=True).start()
    try:
        answer = answers.get(timeout=_REACH_TIMEOUT_S)
    except queue.Empty:
        raise Unreachable(f"no answer within {_REACH_TIMEOUT_S:.0f} s") from None
    if isinstance(answer, Exception):
        raise Unreachable(str(getattr(answer, "reason", answer))) from answer
    return answer


def _fetch_to_file(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_READ_TIMEOUT_S) as response, path.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: {error}") from error


def _unpack(archive: Path, scratch: Path, bin_folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            # Pythons before 3.11.4 have no filters; the archive is the published one either way.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(scratch / "unpacked")
    except tarfile.TarError as error:
        raise ToolchainError(f"{archive.name} cannot be unpacked: {error}") from error
    for program in (scratch / "unpacked" / "pulumi").iterdir():
        shutil.move(program, bin_folder / program.name)
