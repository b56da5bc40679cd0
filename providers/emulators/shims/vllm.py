"""`vllm` on an emulated machine: takes vLLM's own command line and becomes the local engine with a tiny model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from providers.emulators.machines.machine_file import find_own_folder, load_machine_file
from schemas.files import replace_file

# Set by the docker shim: container ports and the ports of the host they are published on, as JSON.
PORT_MAP = "LEASEHOLD_EMULATOR_PORT_MAP"
VERSION = "0.32.0+emulated"
MODEL = "builtin:tiny-chat"
_DEFAULT_PORT = 8000
_POOLING = {"--runner": ("pooling",), "--task": ("embed", "embedding", "score", "reward", "classify")}


class VllmOptions(msgspec.Struct, kw_only=True):
    model: str = ""
    served_name: str = ""
    port: int = _DEFAULT_PORT
    api_key: str = ""
    pooling: bool = False


def main(arguments: Sequence[str]) -> int:
    if "--version" in arguments or "-v" in arguments:
        sys.stdout.write(VERSION + "\n")
        return 0
    if not arguments or arguments[0] != "serve":
        sys.stderr.write("usage: vllm serve MODEL [options]\n")
        return 2
    options = read_options(arguments[1:], os.environ)
    if not options.model:
        sys.stderr.write("vllm serve: error: the following arguments are required: model_tag\n")
        return 2
    folder = find_own_folder()
    crash = load_machine_file(folder).engine_crash
    if crash:
        sys.stderr.write(f"INFO: loading {options.model}\n{crash}\n")
        return 1
    command = make_command(options, folder)
    os.execv(command[0], command)


def read_options(arguments: Sequence[str], environment: Mapping[str, str]) -> VllmOptions:
    """Only what the local engine can follow; vLLM has some 200 more options, which are let by."""
    options = VllmOptions(api_key=environment.get("VLLM_API_KEY", ""))
    words = list(arguments)
    if words and not words[0].startswith("-"):
        options.model = words.pop(0)
    flags: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
            flags.setdefault(name, []).extend([value] if has_value else [])
        elif name:
            flags[name].append(word)
    options.model = first(flags, "--model") or options.model
    options.served_name = first(flags, "--served-model-name") or options.model
    options.port = map_port(int(first(flags, "--port") or _DEFAULT_PORT), environment)
    options.api_key = first(flags, "--api-key") or options.api_key
    options.pooling = any(first(flags, flag) in words for flag, words in _POOLING.items())
    return options


def make_command(options: VllmOptions, folder: Path) -> list[str]:
    """The engine's command line; its key goes into a file that only we can read."""
    key_file = folder / f"vllm-{options.port}.key"
    replace_file(key_file, options.api_key.encode(), mode=0o600)
    command = [
        str(folder / "bin" / "llamacpp-server"),
        *("--model", MODEL),
        *("--alias", options.served_name),
        *("--host", "127.0.0.1"),
        *("--port", str(options.port)),
    ]
    if options.api_key:
        command += ["--api-key-file", str(key_file)]
    return [*command, "--embeddings"] if options.pooling else command


def first(flags: Mapping[str, list[str]], name: str) -> str:
    return (flags.get(name) or [""])[0]


def map_port(port: int, environment: Mapping[str, str]) -> int:
    published = msgspec.json.decode(environment.get(PORT_MAP, "{}"), type=dict[str, int])
    return published.get(str(port), port)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
