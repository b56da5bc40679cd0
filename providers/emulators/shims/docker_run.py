"""What `docker run` was asked for, read from its command line. Used by the docker shim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

_SWITCHES = frozenset(
    [
        "-d",
        "--detach",
        "-i",
        "--interactive",
        "-t",
        "--tty",
        "-it",
        "-ti",
        "-di",
        "-dit",
        "--rm",
        "--privileged",
        "--init",
        "--read-only",
        "-P",
        "--publish-all",
        "-q",
        "--quiet",
        "--no-healthcheck",
    ]
)
_ENTRYPOINT = ["vllm", "serve"]


class UsageError(Exception):
    """What docker would print; exit code 125."""


class ContainerRequest(msgspec.Struct, kw_only=True):
    """environment is what the container gets, ports maps container ports to host ports, volumes container to host paths."""

    image: str = ""
    name: str = ""
    detach: bool = False
    remove: bool = False
    has_gpus: bool = False
    entrypoint: str | None = None
    environment: dict[str, str] = {}
    ports: dict[str, int] = {}
    volumes: dict[str, str] = {}
    arguments: list[str] = []

    def command(self) -> list[str]:
        """What runs, with paths inside the container turned into the host's, since there is no container."""
        if self.entrypoint:
            words = [self.entrypoint, *self.arguments]
        elif "vllm" in self.image:
            words = [*_ENTRYPOINT, *self.arguments]
        else:
            words = list(self.arguments)
        for inside in sorted(self.volumes, key=len, reverse=True):
            words = [word.replace(inside, self.volumes[inside]) for word in words]
        return words


def read_run(arguments: Sequence[str], environment: Mapping[str, str]) -> ContainerRequest:
    """Raises UsageError for a command line that docker would refuse."""
    request = ContainerRequest(environment={}, ports={}, volumes={}, arguments=[])
    words = list(arguments)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        if word in _SWITCHES:
            request.detach |= word == "--detach" or (not word.startswith("--") and "d" in word)
            request.remove |= word == "--rm"
            continue
        flag, has_value, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:
            flag, value = word[:2], word[2:]
        elif not has_value:
            if not words:
                raise UsageError(f"flag needs an argument: {flag}")
            value = words.pop(0)
        take_option(request, flag, value, environment)
    if not words:
        raise UsageError('"docker run" requires at least 1 argument.')
    request.image = words.pop(0)
    request.arguments = words
    return request


def take_option(request: ContainerRequest, flag: str, value: str, environment: Mapping[str, str]) -> None:
    if flag == "--name":
        request.name = value
    elif flag == "--gpus":
        request.has_gpus = True
    elif flag == "--entrypoint":
        request.entrypoint = value
    elif flag in ("-e", "--env"):
        name, has_value, text = value.partition("=")
        if has_value or name in environment:
            request.environment[name] = text if has_value else environment[name]
    elif flag == "--env-file":
        request.environment.update(read_env_file(Path(value)))
    elif flag in ("-p", "--publish"):
        *address, inside = value.removesuffix("/tcp").split(":")
        request.ports[inside] = int(address[-1]) if address else int(inside)
    elif flag in ("-v", "--volume"):
        host, _, rest = value.partition(":")
        request.volumes[rest.partition(":")[0]] = host
    elif flag == "--mount":
        parts = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
        inside = parts.get("target") or parts.get("destination") or parts.get("dst") or ""
        if inside:
            request.volumes[inside] = parts.get("source") or parts.get("src") or ""


def read_env_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UsageError(f"open {path}: {error.strerror}") from error
    pairs = (line.partition("=") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): value for name, _, value in pairs}
